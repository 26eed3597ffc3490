// Echoes with coder/websocket; what every server here does is told in ../../echoes.py.
package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"regexp"
	"runtime"
	"runtime/debug"
	"strconv"

	"github.com/coder/websocket"
)

const library = "github.com/coder/websocket"

var order = regexp.MustCompile(`^close (\d+) (.*)$`)

type record map[string]any

func say(what record) {
	line, _ := json.Marshal(what)
	fmt.Println(string(line))
}

func main() {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		panic(err)
	}
	name := fmt.Sprintf("coder/websocket %s on %s", version(), runtime.Version())
	say(record{"event": "listening", "port": listener.Addr().(*net.TCPAddr).Port, "name": name})
	fmt.Fprintln(os.Stderr, http.Serve(listener, http.HandlerFunc(serve)))
}

func version() string {
	if build, ok := debug.ReadBuildInfo(); ok {
		for _, module := range build.Deps {
			if module.Path == library {
				return module.Version
			}
		}
	}
	return "of unknown version"
}

func serve(writer http.ResponseWriter, request *http.Request) {
	options := websocket.AcceptOptions{
		Subprotocols:       []string{"tide"},
		OriginPatterns:     []string{"*"},
		CompressionMode:    websocket.CompressionContextTakeover,
		InsecureSkipVerify: true,
	}
	socket, err := websocket.Accept(writer, request, &options)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return
	}
	defer socket.CloseNow()
	socket.SetReadLimit(16 << 20)
	var closed websocket.CloseError
	if errors.As(echo(socket, request), &closed) {
		say(record{"event": "closed", "path": request.URL.Path, "code": int(closed.Code), "reason": closed.Reason})
	}
}

// echo returns how reading ended.
func echo(socket *websocket.Conn, request *http.Request) error {
	for {
		kind, message, err := socket.Read(request.Context())
		if err != nil {
			return err
		}
		if found := order.FindSubmatch(message); found != nil && kind == websocket.MessageText {
			code, _ := strconv.Atoi(string(found[1]))
			return socket.Close(websocket.StatusCode(code), string(found[2]))
		}
		if err := socket.Write(request.Context(), kind, message); err != nil {
			return err
		}
	}
}
