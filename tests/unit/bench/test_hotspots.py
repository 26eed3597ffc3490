"""What perf saw is counted, told apart and drawn as it was."""

import sys
import xml.etree.ElementTree
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[3] / "bench"))

import flame
import hotspots

SCRIPT = """\
        ffffffff81000001 tcp_sendmsg ([kernel.kallsyms])
        ffffffff81000002 __sys_sendto ([kernel.kallsyms])
            7f0000000001 tidegate_engine::relay::Relay::pass (/x/_engine.abi3.so)

            7f0000000002 tidegate_engine::ws::observer::Observer::observe (/x/_engine.abi3.so)
            7f0000000001 [unknown] (/usr/lib/libc.so.6)

        ffffffff81000001 tcp_sendmsg ([kernel.kallsyms])
        ffffffff81000002 __sys_sendto ([kernel.kallsyms])
            7f0000000001 tidegate_engine::relay::Relay::pass (/x/_engine.abi3.so)

"""
SEND = ("tidegate_engine::relay::Relay::pass", "__sys_sendto_[k]", "tcp_sendmsg_[k]")
OBSERVE = ("[libc.so.6]", "tidegate_engine::ws::observer::Observer::observe")


def test_samples_are_counted_by_their_stacks() -> None:
    assert hotspots.parse(SCRIPT) == Counter({SEND: 2, OBSERVE: 1})


def test_a_sample_in_the_kernel_belongs_to_its_system_call() -> None:
    assert hotspots.area(SEND).startswith("kernel: send")
    assert hotspots.area(OBSERVE) == "engine: relay and frames"
    assert hotspots.area(("main", "_mi_malloc")) == "memory"
    assert hotspots.area(("main", "whatever")) == "the rest (libc, clock)"


def test_the_graph_is_as_wide_as_the_samples() -> None:
    svg = xml.etree.ElementTree.fromstring(flame.draw(Counter({SEND: 2, OBSERVE: 1}), "a < b"))
    boxes = svg.findall("{*}g")
    titles = {box.findtext("{*}title"): float(box.find("{*}rect").attrib["width"]) for box in boxes}  # type: ignore[union-attr]
    assert titles["all: 100.00%"] == flame.WIDTH
    assert titles["__sys_sendto: 66.67%"] == flame.WIDTH * 2 // 3
