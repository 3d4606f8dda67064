package inject

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/rs/zerolog"
	"k8s.io/client-go/rest"

	"github.com/semsharekv/semsharekv/internal/lab"
)

// While endpoints still name a webhook that is to end, pods that are sent to it
// over new connections are answered.
func TestTheWebhookAnswersForAWhileAfterItIsToEnd(t *testing.T) {
	cluster := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, `{"major": "1", "minor": "37"}`)
	}))
	defer cluster.Close()
	dir := t.TempDir()
	data, err := (&keeper{host: "localhost", now: time.Now}).issue(nil)
	mustDo(t, err)
	for _, name := range []string{secretKey, secretCertificate} {
		mustDo(t, os.WriteFile(dir+"/"+name, data[name], 0o600))
	}
	port, err := lab.FreePort()
	mustDo(t, err)
	o := Options{
		Settings: testSettings(), CertDir: dir, Linger: time.Second, Log: zerolog.Nop(),
		Listen: fmt.Sprintf("127.0.0.1:%d", port), Admin: "127.0.0.1:0", Cluster: &rest.Config{Host: cluster.URL},
	}
	answers := func() bool {
		c := http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, DisableKeepAlives: true}}
		resp, err := c.Post("https://"+o.Listen+Path, "application/json", strings.NewReader("{}"))
		if err != nil {
			return false
		}
		resp.Body.Close()
		return resp.StatusCode == http.StatusOK
	}
	ctx, end := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- Run(ctx, o) }()
	until(t, "the webhook answers", answers)
	end()
	time.Sleep(o.Linger / 4)
	if !answers() {
		t.Error("the webhook answers no more right after it was asked to end")
	}
	mustDo(t, <-done)
	if answers() {
		t.Error("the webhook has ended and still answers")
	}
}
