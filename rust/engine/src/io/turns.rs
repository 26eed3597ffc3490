//! Whose turn it is on a worker.
//!
//! A worker's runtime is fair by order of arrival: who is woken waits until all have run that were woken before. With
//! two hundred large answers under way, each of which moves a quarter of a megabyte when it runs, a message of a live
//! WebSocket would wait tens of milliseconds; with a crowd of clients that come, or are told to go, in the same
//! millisecond it is the same. So work that can wait takes turns: one at a time, and between any two of them the worker
//! looks at its sockets, and whatever is ready there goes first.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

thread_local! {
    static QUEUE: RefCell<Queue> = RefCell::default();
}

#[derive(Default)]
struct Queue {
    waiting: VecDeque<Rc<Place>>,
    /// Who gives the turns, while nobody waits for one.
    idle: Option<Waker>,
    /// Whether anybody gives turns on this thread.
    is_kept: bool,
}

#[derive(Debug)]
struct Place {
    has_come: Cell<bool>,
    waker: RefCell<Waker>,
}

/// One that takes turns. It may run at once until it has given way for the first time.
#[derive(Debug, Default)]
pub struct Turn(Option<Rc<Place>>);

impl Turn {
    /// Goes to the end of the line: the task is woken when its turn comes, and [`Self::poll`] is pending until then.
    pub fn give_way(&mut self, cx: &Context<'_>) {
        let place = Rc::new(Place { has_come: Cell::new(false), waker: RefCell::new(cx.waker().clone()) });
        let is_kept = QUEUE.with_borrow_mut(|queue| {
            if queue.is_kept {
                queue.waiting.push_back(place.clone());
                queue.idle.take().inspect(Waker::wake_by_ref);
            }
            queue.is_kept
        });
        if is_kept {
            self.0 = Some(place);
        } else {
            cx.waker().wake_by_ref();
        }
    }

    /// Ready unless it waits for its turn.
    pub fn poll(&mut self, cx: &Context<'_>) -> Poll<()> {
        match &self.0 {
            Some(place) if !place.has_come.get() => {
                place.waker.borrow_mut().clone_from(cx.waker());
                Poll::Pending
            }
            _ => {
                self.0 = None;
                Poll::Ready(())
            }
        }
    }
}

/// Waits for a turn.
pub async fn next() {
    let (mut turn, mut is_in_line) = (Turn::default(), false);
    poll_fn(|cx| {
        if !std::mem::replace(&mut is_in_line, true) {
            turn.give_way(cx);
            return Poll::Pending;
        }
        turn.poll(cx)
    })
    .await;
}

/// Gives the turns of this thread, one between any two looks at the sockets.
pub async fn keep() {
    QUEUE.with_borrow_mut(|queue| queue.is_kept = true);
    loop {
        let place = poll_fn(|cx| QUEUE.with_borrow_mut(|queue| queue.poll_next(cx))).await;
        place.has_come.set(true);
        place.waker.borrow().wake_by_ref();
        // Wakes this task only after the runtime has polled for events and woken those that they are for.
        tokio::task::yield_now().await;
    }
}

impl Queue {
    fn poll_next(&mut self, cx: &Context<'_>) -> Poll<Rc<Place>> {
        while let Some(place) = self.waiting.pop_front() {
            // Who was in line may be gone.
            if Rc::strong_count(&place) > 1 {
                return Poll::Ready(place);
            }
        }
        self.idle = Some(cx.waker().clone());
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::UnixStream;

    use super::*;
    use crate::io::run;

    #[test]
    fn what_is_ready_on_a_socket_goes_between_two_turns() {
        run(async {
            tokio::task::spawn_local(keep());
            tokio::task::yield_now().await;
            let story: Rc<RefCell<Vec<&str>>> = Rc::default();
            let (mut near, mut far) = UnixStream::pair().unwrap();
            let said = story.clone();
            let live = tokio::task::spawn_local(async move {
                far.read_exact(&mut [0]).await.unwrap();
                said.borrow_mut().push("live");
            });
            tokio::task::yield_now().await;
            let mut bulky = Vec::new();
            for name in ["first", "second", "third"] {
                let story = story.clone();
                bulky.push(tokio::task::spawn_local(async move {
                    next().await;
                    story.borrow_mut().push(name);
                }));
            }
            near.write_all(b"x").await.unwrap();
            live.await.unwrap();
            for each in bulky {
                each.await.unwrap();
            }
            let story = story.borrow();
            assert_eq!(story.len(), 4);
            assert!(story.iter().position(|&name| name == "live") < Some(2), "{story:?}");
        });
    }

    #[test]
    fn who_has_left_the_line_is_passed_over() {
        run(async {
            tokio::task::spawn_local(keep());
            tokio::task::yield_now().await;
            let gone = tokio::task::spawn_local(next());
            let second = tokio::task::spawn_local(next());
            tokio::task::yield_now().await;
            gone.abort();
            second.await.unwrap();
        });
    }

    #[test]
    fn without_anybody_who_gives_turns_it_goes_on_by_itself() {
        run(next());
    }
}
