package bridge

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/tidwall/gjson"
	"golang.org/x/sys/unix"
)

// Backend is the HTTP client of the endpoints that llama-server offers to
// whoever manages its slots. It is safe for concurrent use.
type Backend struct {
	// Gone, where given, is called with each error by which the server is seen to be away.
	// Set it before the first call.
	Gone func(error)

	url    string
	apiKey string
	http   *http.Client
	fresh  *http.Client // of connections that serve one request each
}

// BackendError is an answer of the backend other than 200.
type BackendError struct {
	Path   string
	Status int
	Body   string
	// Quotes says that Body may quote a client's prompt. Error leaves it out then.
	Quotes bool
}

func (e *BackendError) Error() string {
	if e.Quotes {
		return fmt.Sprintf("backend answered %s with status %d", e.Path, e.Status)
	}
	return fmt.Sprintf("backend answered %s with status %d: %s", e.Path, e.Status, e.Body)
}

// discreet marks what the backend says to a client's prompt.
func discreet(err error) error {
	var answer *BackendError
	if errors.As(err, &answer) {
		answer.Quotes = true
	}
	return err
}

// ErrChanged says that the backend is not as it was probed: started with other settings.
var ErrChanged = errors.New("the backend is not the one that was probed")

// maxReply bounds the answers read from the backend: the token list of a long
// prompt is a few megabytes, a rendered prompt as long as what it is rendered from.
const maxReply = 64 << 20

// NewBackend returns a client of the llama-server at url (http://host:port with
// an optional path prefix). apiKey may be empty.
func NewBackend(url, apiKey string, connect time.Duration) *Backend {
	t := http.DefaultTransport.(*http.Transport).Clone()
	t.DialContext = dialer(connect)
	t.Proxy = nil // the backend is next door; a proxy of the environment is not meant for it
	t.MaxIdleConnsPerHost = 16
	alone := t.Clone()
	alone.DisableKeepAlives = true
	return &Backend{url: strings.TrimRight(url, "/"), apiKey: apiKey, http: &http.Client{Transport: t}, fresh: &http.Client{Transport: alone}}
}

// Once returns a client that opens a connection per request. net/http never retries on
// those, as a recipe requires, and no idle connection occupies one of the server's worker
// threads.
func (b *Backend) Once() *Backend {
	o := *b
	o.http = b.fresh
	return &o
}

// Close drops the idle connections.
func (b *Backend) Close() { b.http.CloseIdleConnections() }

// authorization is the Authorization of the sidecar's own requests.
func (b *Backend) authorization() string {
	if b.apiKey == "" {
		return ""
	}
	return "Bearer " + b.apiKey
}

// Keyed reports whether the sidecar was given a key, so that the backend refuses
// clients without one.
func (b *Backend) Keyed() bool { return b.apiKey != "" }

// loading is in llama-server's answers (503) while it loads its model.
const loading = "oading model"

// Away tells whether an error says that the server is not there, or still loads its model:
// it may be another one afterwards. One that only does not answer in time is not away.
func Away(err error) bool {
	var answer *BackendError
	if errors.As(err, &answer) {
		return Loading(err)
	}
	var name *net.DNSError
	if errors.As(err, &name) {
		return name.IsNotFound
	}
	return errors.Is(err, unix.ECONNREFUSED) || errors.Is(err, unix.ECONNRESET) || errors.Is(err, unix.EHOSTUNREACH)
}

// Loading tells whether an error says that the server is still loading its model.
func Loading(err error) bool {
	var answer *BackendError
	return errors.As(err, &answer) && answer.Status == http.StatusServiceUnavailable && strings.Contains(answer.Body, loading)
}

// call is send, with an eye on whether the server is there.
func (b *Backend) call(ctx context.Context, method, path, auth string, body []byte) ([]byte, error) {
	reply, err := b.send(ctx, method, path, auth, body)
	if b.Gone != nil && Away(err) {
		b.Gone(err)
	}
	return reply, err
}

// send makes one request and returns the body of a 200 answer.
func (b *Backend) send(ctx context.Context, method, path, auth string, body []byte) ([]byte, error) {
	ctx, spend := tracked(ctx)
	req, err := http.NewRequestWithContext(ctx, method, b.url+path, bytes.NewReader(body))
	if err != nil {
		return nil, fmt.Errorf("cannot ask the backend for %s: %w", path, err)
	}
	req.Header.Set("Content-Type", "application/json")
	// net/http may send a request again (but see Once) if the server had closed a kept
	// connection, as llama-server does after 5 s: nothing here does harm if it is asked
	// twice. An empty value marks the request so and is not sent.
	req.Header["Idempotency-Key"] = nil
	if auth != "" {
		req.Header.Set("Authorization", auth)
	}
	resp, err := b.http.Do(req)
	if err != nil {
		return nil, fmt.Errorf("cannot ask the backend for %s: %w", path, err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK && resp.ProtoMajor == 1 {
		spend() // before its body ends, from when on others could be given the connection
	}
	reply, err := io.ReadAll(io.LimitReader(resp.Body, maxReply+1))
	if err == nil && len(reply) > maxReply {
		err = fmt.Errorf("it is longer than %d bytes", maxReply)
	}
	if err != nil {
		return nil, fmt.Errorf("cannot read the backend's answer to %s: %w", path, err)
	}
	if resp.StatusCode != http.StatusOK {
		return nil, &BackendError{Path: path, Status: resp.StatusCode, Body: gjson.GetBytes(reply, "error.message").String()}
	}
	return reply, nil
}

func (b *Backend) post(ctx context.Context, path, auth string, body any) ([]byte, error) {
	var raw bytes.Buffer
	e := json.NewEncoder(&raw)
	e.SetEscapeHTML(false) // of a prompt full of < it would make six times as much
	if err := e.Encode(body); err != nil {
		return nil, fmt.Errorf("cannot encode the request for %s: %w", path, err)
	}
	return b.call(ctx, http.MethodPost, path, auth, raw.Bytes())
}

// Health reports whether the backend has its model loaded.
func (b *Backend) Health(ctx context.Context) error {
	_, err := b.call(ctx, http.MethodGet, "/health", b.authorization(), nil)
	return err
}
