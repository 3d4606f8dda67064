package proxy

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strconv"
	"testing"
	"time"

	"github.com/semsharekv/semsharekv/configs"
	"github.com/semsharekv/semsharekv/internal/lab"
	"github.com/semsharekv/semsharekv/internal/lab/tinymodel"
)

// TestNobodyWaitsForAnAnswerThatIsKept: where the server goes on with an answer that nobody
// reads, others get the other slot, until it is done; and the sidecar ends all the same.
func TestNobodyWaitsForAnAnswerThatIsKept(t *testing.T) {
	s := startSharing(t, lab.BackendOptions{Context: 8192}, apart)
	working := func() int {
		busy, _ := s.server.sharer.backend.Busy(t.Context())
		for i, b := range busy {
			if b {
				return i
			}
		}
		return -1
	}
	leave := func() int {
		t.Helper()
		answer := s.converse("x", "left", 4000)
		if _, err := io.ReadFull(answer, make([]byte, 1)); err != nil {
			t.Fatal(err)
		}
		slot := working()
		_ = answer.Close()
		within(t, "the sidecar notices", func() bool { return !s.server.hangups.awaiting() })
		return slot
	}
	slot := leave()
	for _, prompt := range []string{"The sea is", "A ship went", "Her lamp burns"} {
		status, text := s.as("y", "POST", "/completion", `{"prompt":"`+prompt+`","n_predict":1}`)
		if status != http.StatusOK || working() != slot {
			t.Fatalf("status %d, %s; at work is slot %d, expected %d", status, text, working(), slot)
		}
	}
	if status, text := s.as("x", "DELETE", "/v1/stream?conv_id=left", ""); status != http.StatusNoContent {
		t.Fatalf("status %d, %s", status, text)
	}
	if err := s.server.sharer.Drain(t.Context()); err != nil {
		t.Fatal(err)
	}
	if lv := s.live(); lv == nil || !lv.slots.acquireAll(t.Context()) {
		t.Fatal("a slot is still taken")
	}
	s.live().slots.releaseAll()

	leave()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := s.server.Shutdown(ctx); err != nil || working() < 0 {
		t.Errorf("the sidecar ended with %v, at work is slot %d: expected that it does not wait", err, working())
	}
}

// TestABackendThatFailsOnWhatWasFilledIsLeftAlone, and one that refuses it is not.
func TestABackendThatFailsOnWhatWasFilledIsLeftAlone(t *testing.T) {
	b := lab.StartBackend(t, lab.BackendOptions{Model: tinymodel.Make(t, tinymodel.Options{})})
	target, err := url.Parse(b.URL)
	if err != nil {
		t.Fatal(err)
	}
	through := httputil.NewSingleHostReverseProxy(target)
	front := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if status, err := strconv.Atoi(r.Header.Get("X-Answer")); err == nil {
			http.Error(w, "failed to process speculative batch", status)
			return
		}
		through.ServeHTTP(w, r)
	}))
	defer front.Close()
	s := besides(t, b, func(c *configs.Config) { c.Backend.URL = front.URL })
	s.server.sharer.Try(&Trial{})
	s.want(s.complete(tale("1812")), "cold")
	f := func(status int, prompt string) {
		t.Helper()
		if err := s.server.sharer.Ready(); err != nil {
			t.Fatalf("before an answer of %d: %v", status, err)
		}
		r := s.post("/completion", `{"prompt":`+quote(prompt+tale("1812"))+`}`, "X-Answer", strconv.Itoa(status))
		if s.want(r, "shared"); r.status != status {
			t.Fatalf("status %d, expected %d", r.status, status)
		}
	}
	for _, status := range []int{400, 503, 500} { // a prompt that is sent again is one
		for range maxStrikes {
			f(status, "Once more. ")
		}
	}
	f(500, "Twice more. ")
	f(500, "Thrice more. ")
	if s.server.sharer.Ready() == nil {
		t.Error("after answers of 500 to three prompts that were filled in, it goes on filling")
	}
}
