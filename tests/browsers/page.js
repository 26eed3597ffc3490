// Runs in a page of the gateway's: opens `count` WebSockets to `path`/1 and so on, one after another, keeps them all
// open, and tells what the browser told of each. They end when the caller, who counts connections meanwhile, calls `ended`.
async ({ path, count, size }) => {
  const text = (number) => `tide ${number} ≈ 🌊`;
  // Random, so that permessage-deflate leaves it as large as it is; at most 64 KiB are to be had at once.
  const bytes = new Uint8Array(size);
  for (let place = 0; place < size; place += 1 << 16) crypto.getRandomValues(bytes.subarray(place, place + (1 << 16)));
  const same = (other) => other.length === bytes.length && other.every((each, place) => each === bytes[place]);

  const opened = (number) =>
    new Promise((resolve) => {
      const socket = new WebSocket(`wss://${location.host}${path}/${number}`, ["tide"]);
      const seen = { number, opened: false, text: false, binary: false, close: null };
      socket.binaryType = "arraybuffer";
      const closed = new Promise((over) => {
        socket.onclose = ({ code, reason, wasClean }) => {
          seen.close = { code, reason, clean: wasClean };
          over();
          resolve({ socket, seen, closed });
        };
      });
      socket.onopen = () => {
        Object.assign(seen, { opened: true, subprotocol: socket.protocol, extensions: socket.extensions });
        resolve({ socket, seen, closed });
      };
    });

  const answer = (socket, message) =>
    new Promise((resolve) => {
      socket.onmessage = ({ data }) => resolve(data);
      socket.addEventListener("close", () => resolve(null));
      socket.send(message);
    });

  const sockets = [];
  for (let number = 1; number <= count; number += 1) {
    const one = await opened(number);
    sockets.push(one);
    if (!one.seen.opened) continue;
    one.seen.text = (await answer(one.socket, text(number))) === text(number);
  }
  // Once more when all are open, so that they have company.
  const echo = async ({ socket, seen }) => {
    const back = seen.opened ? await answer(socket, bytes) : null;
    seen.binary = back !== null && same(new Uint8Array(back));
  };
  await Promise.all(sockets.map(echo));
  globalThis.ended = async () => {
    for (const { socket, seen, closed } of sockets) {
      if (socket.readyState === WebSocket.OPEN) {
        // Odd ones are closed by the page, even ones by the server.
        if (seen.number % 2) socket.close(4000 + seen.number, `page ${seen.number}`);
        else socket.send(`close ${4000 + seen.number} server ${seen.number}`);
      }
      await closed;
    }
    return JSON.stringify(sockets.map(({ seen }) => seen));
  };
  return JSON.stringify(sockets.length);
}
