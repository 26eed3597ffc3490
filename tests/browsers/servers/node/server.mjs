// Echoes with the `ws` library; what every server here does is told in ../../echoes.py.
import { createRequire } from "node:module";
import { WebSocketServer } from "ws";

const version = createRequire(import.meta.url)("ws/package.json").version;
const say = (record) => console.log(JSON.stringify(record));

const server = new WebSocketServer({
  host: "127.0.0.1",
  port: 0,
  perMessageDeflate: true,
  handleProtocols: (offered) => (offered.has("tide") ? "tide" : false),
});

server.on("listening", () => {
  const name = `ws ${version} on Node.js ${process.versions.node}`;
  say({ event: "listening", port: server.address().port, name });
});

server.on("connection", (socket, request) => {
  socket.on("message", (message, isBinary) => {
    const order = isBinary ? null : /^close (\d+) (.*)$/.exec(message.toString());
    if (order) socket.close(Number(order[1]), order[2]);
    else socket.send(message, { binary: isBinary });
  });
  socket.on("close", (code, reason) => say({ event: "closed", path: request.url, code, reason: reason.toString() }));
});
