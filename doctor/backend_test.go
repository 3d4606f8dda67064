package doctor

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/semsharekv/semsharekv/bridge"
	"github.com/semsharekv/semsharekv/configs"
)

// What llama-server's router answers: that of the tests can be none.
func TestARouterIsToldWhatToDo(t *testing.T) {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprint(w, `{"role":"router","default_generation_settings":{"n_ctx":0}}`)
	}))
	defer s.Close()
	x := &examination{ctx: context.Background(), cfg: configs.Default()}
	x.cfg.Backend.URL = s.URL
	if b := x.backend(); b != nil {
		t.Error("a router is gone on with")
	}
	if got := x.found[0]; got.Level != Wrong || !strings.Contains(got.Found, "router") || !strings.Contains(got.Advice, "llama-server for each model") {
		t.Errorf("%+v", got)
	}
}

func TestAdviceOnKeysThatCannotMoveIsThatOfItsCause(t *testing.T) {
	f := func(file *bridge.Model, version uint32, keys bridge.KVType, want string) {
		t.Helper()
		b := &backend{file: file}
		p := &bridge.Probed{Layout: bridge.Layout{Version: version, Layers: []bridge.LayerLayout{{KType: keys}}}}
		if got := b.toMove(p); !strings.Contains(got, want) {
			t.Errorf("version %d, %s: %q, want %q", version, keys, got, want)
		}
	}
	f(nil, 4, bridge.F16, "backend.model")
	f(&bridge.Model{}, 3, bridge.Q8_0, "-ctk f16")
	f(&bridge.Model{}, 4, bridge.Q8_0, "RoPE flags")
	f(&bridge.Model{}, 3, bridge.F16, "RoPE flags")
}
