package bridge

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/textproto"
	"strconv"
	"strings"
	"testing"
	"time"
)

// TestARefusedBodyIsNobodysRequest asks a server that refuses a client's key without reading
// what it asked, and takes that for the next request.
func TestARefusedBodyIsNobodysRequest(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			go refuseUnread(c)
		}
	}()
	b := NewBackend("http://"+ln.Addr().String(), "right", time.Second)
	defer b.Close()
	var answer *BackendError
	for range 3 {
		if _, err := b.Tokenize(context.Background(), "Bearer wrong", "x", true, true); !errors.As(err, &answer) || answer.Status != 401 {
			t.Fatalf("the wrong key: %v, expected 401", err)
		}
		if err := b.Erase(context.Background(), 0); err != nil {
			t.Errorf("the request after that: %v", err)
		}
	}
}

func refuseUnread(c net.Conn) {
	defer c.Close()
	br := bufio.NewReader(c)
	for {
		line, err := textproto.NewReader(br).ReadLine()
		if err != nil {
			return
		}
		h, _ := textproto.NewReader(br).ReadMIMEHeader()
		status, body := "200 OK", "{}"
		switch {
		case !strings.HasPrefix(line, "POST "):
			status = "400 Bad Request"
		case h.Get("Authorization") == "Bearer wrong":
			status = "401 Unauthorized"
		default:
			n, _ := strconv.Atoi(h.Get("Content-Length"))
			_, _ = io.CopyN(io.Discard, br, int64(n))
		}
		_, _ = fmt.Fprintf(c, "HTTP/1.1 %s\r\nContent-Length: %d\r\n\r\n%s", status, len(body), body)
	}
}
