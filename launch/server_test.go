package launch

import (
	"context"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/rs/zerolog"
)

func TestWhoeverDependsOnTheServerIsToldOfItsEnd(t *testing.T) {
	health := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	defer health.Close()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	ended := 0
	s := &Server{Command: &Command{Args: []string{"sleep", "0.1"}}, URL: health.URL, Log: zerolog.Nop()}
	s.Ended = func() {
		ended++
		cancel()
	}
	if err := s.Run(ctx); err != nil || ended != 1 {
		t.Errorf("%v, told %d times, want once", err, ended)
	}
}
