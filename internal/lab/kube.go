package lab

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	_ "embed"
	"encoding/pem"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"
)

//go:embed kube-setup
var kubeScript string

// Kube is a running kube-apiserver with an etcd behind it. There are no nodes and
// no controllers: pods are stored and never run, Deployments make none.
type Kube struct {
	URL   string
	Token string // of a cluster administrator
	// UserToken is of the user "lab-user", who has no rights but those that a test
	// gives.
	UserToken string
	CAFile    string // of the server's certificate

	dir   string
	procs []*kubeProcess // in the order of their start
}

type kubeProcess struct {
	cmd  *exec.Cmd
	done chan struct{}
}

// StartKube runs a kube-apiserver until the test ends. The first time it is
// built, which takes some ten minutes on two cores. The rules of StartBackend
// hold.
func StartKube(t testing.TB) *Kube {
	t.Helper()
	if testing.Short() {
		t.Skip("SKIPPED: needs a real kube-apiserver, and -short is set")
	}
	bin, err := runScript(context.Background(), kubeScript, os.Stderr)
	if err != nil {
		missing(t, fmt.Errorf("cannot build kube-apiserver: %w", err))
	}
	k := &Kube{Token: "lab-admin", UserToken: "lab-user", dir: t.TempDir()}
	t.Cleanup(func() { k.stop(t) })
	if err := k.start(bin); err != nil {
		t.Fatal(err)
	}
	return k
}

func (k *Kube) start(bin string) error {
	ports := make([]int, 3)
	for i := range ports {
		var err error
		if ports[i], err = FreePort(); err != nil {
			return err
		}
	}
	etcd := fmt.Sprintf("http://127.0.0.1:%d", ports[0])
	peer := fmt.Sprintf("http://127.0.0.1:%d", ports[1])
	if err := k.run(filepath.Join(bin, "etcd"), "--data-dir", filepath.Join(k.dir, "etcd"), "--unsafe-no-fsync",
		"--listen-client-urls", etcd, "--advertise-client-urls", etcd, "--listen-peer-urls", peer,
		"--initial-advertise-peer-urls", peer, "--initial-cluster", "default="+peer); err != nil {
		return err
	}
	key := filepath.Join(k.dir, "accounts.key")
	if err := writeKey(key); err != nil {
		return err
	}
	tokens := filepath.Join(k.dir, "tokens.csv")
	if err := os.WriteFile(tokens, []byte(k.Token+`,admin,1,"system:masters"`+"\n"+k.UserToken+",lab-user,2\n"), 0o600); err != nil {
		return err
	}
	k.URL = fmt.Sprintf("https://127.0.0.1:%d", ports[2])
	certs := filepath.Join(k.dir, "certs")
	k.CAFile = filepath.Join(certs, "apiserver.crt")
	if err := k.run(filepath.Join(bin, "kube-apiserver"), "--etcd-servers", etcd, "--cert-dir", certs,
		"--bind-address", "127.0.0.1", "--secure-port", fmt.Sprint(ports[2]),
		"--service-account-issuer", "https://kube.lab", "--service-account-key-file", key,
		"--service-account-signing-key-file", key, "--token-auth-file", tokens, "--authorization-mode", "RBAC",
		"--service-cluster-ip-range", "10.0.0.0/24", "--disable-admission-plugins", "ServiceAccount"); err != nil {
		return err
	}
	return k.wait()
}

func (k *Kube) run(program string, args ...string) error {
	log, err := os.Create(k.log(program))
	if err != nil {
		return err
	}
	defer log.Close()
	cmd := exec.Command(program, args...)
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		return err
	}
	p := &kubeProcess{cmd: cmd, done: make(chan struct{})}
	go func() {
		cmd.Wait()
		close(p.done)
	}()
	k.procs = append(k.procs, p)
	return nil
}

func (k *Kube) log(program string) string {
	return filepath.Join(k.dir, filepath.Base(program)+".log")
}

func (k *Kube) wait() error {
	client := http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{
		DisableKeepAlives: true,
		TLSClientConfig:   &tls.Config{InsecureSkipVerify: true}, // only asked whether it is there
	}}
	req, err := http.NewRequest(http.MethodGet, k.URL+"/readyz", nil)
	if err != nil {
		return err
	}
	req.Header.Set("Authorization", "Bearer "+k.Token)
	ended := false
	for end := time.Now().Add(3 * time.Minute); !ended && time.Now().Before(end); {
		select {
		case <-k.procs[len(k.procs)-1].done:
			ended = true
		case <-time.After(100 * time.Millisecond):
		}
		if resp, err := client.Do(req); err == nil {
			resp.Body.Close()
			if resp.StatusCode == http.StatusOK {
				return nil
			}
		}
	}
	text, _ := os.ReadFile(k.log("kube-apiserver"))
	return fmt.Errorf("kube-apiserver at %s did not come up:\n%s", k.URL, tail(text, 4000))
}

// stop ends the API server before its etcd.
func (k *Kube) stop(t testing.TB) {
	if t.Failed() {
		text, _ := os.ReadFile(k.log("kube-apiserver"))
		t.Logf("end of kube-apiserver's log:\n%s", tail(text, 4000))
	}
	for i := len(k.procs) - 1; i >= 0; i-- {
		k.procs[i].cmd.Process.Kill()
		<-k.procs[i].done
	}
}

// writeKey makes the key that service accounts' tokens are signed with.
func writeKey(file string) error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	der, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		return err
	}
	return os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: der}), 0o600)
}
