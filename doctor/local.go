package doctor

import (
	"context"
	"errors"
	"io/fs"
	"net"
	"net/http"
	"os"
	"time"

	"github.com/semsharekv/semsharekv/bridge"
	"github.com/semsharekv/semsharekv/configs"
	"github.com/semsharekv/semsharekv/launch"
	"github.com/semsharekv/semsharekv/matcher"
)

func (x *examination) kernels(library string) {
	k, err := bridge.LoadKernels(library)
	if err != nil {
		x.add(Warning, "kernels", "make build puts libsemshare.so beside the program; backend.library names it elsewhere",
			"composing in Go, several times slower: %v", err)
		return
	}
	x.ok("kernels", "%s", k.Name())
}

// agent: the slot way needs none.
func (x *examination) agent(path string) {
	if _, err := os.Stat(path); err != nil {
		x.ok("agent", "none beside the program; sharing goes through saved slots")
		return
	}
	x.ok("agent", "%s; serve -- llama-server loads it", path)
}

// addresses are free, or a sidecar is there already.
func (x *examination) addresses() {
	for _, a := range []struct{ check, address string }{{"listen", x.cfg.Listen}, {"admin", x.cfg.Admin}} {
		ln, err := net.Listen("tcp", a.address)
		switch {
		case err == nil:
			_ = ln.Close()
			x.ok(a.check, "%s is free", a.address)
		case x.sidecarRuns():
			x.ok(a.check, "%s is in use, and a sidecar answers on %s", a.address, x.cfg.Admin)
		default:
			x.add(Wrong, a.check, "set "+a.check+" to an address of this machine that is free", "cannot listen: %v", err)
		}
	}
}

func (x *examination) sidecarRuns() bool {
	client := http.Client{Timeout: time.Second}
	resp, err := client.Get("http://" + x.cfg.Admin + "/healthz")
	if err != nil {
		return false
	}
	_ = resp.Body.Close()
	return resp.StatusCode == http.StatusOK
}

// tenant: clients of the outside are rarely all one.
func (x *examination) tenant() {
	host, _, err := net.SplitHostPort(x.cfg.Listen)
	if err == nil && !configs.IsLoopback(host) && x.cfg.Defaults.Tenant.Source == "shared" {
		x.add(Warning, "tenants", "set defaults.tenant.source to header or api_key unless all clients trust one another",
			"%s is open to other machines, and all clients are one tenant", x.cfg.Listen)
		return
	}
	x.ok("tenants", "%s", x.cfg.Defaults.Tenant.Source)
}

// slotDir tells whether the directory can be used from here.
func (x *examination) slotDir() bool {
	const check = "slot directory"
	dir := x.cfg.Backend.SlotDir
	st, err := os.Stat(dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		x.add(Wrong, check, "make it, mode 0700, owned by the user of both, and give it to the server as --slot-save-path", "%s does not exist", dir)
		return false
	case err != nil:
		x.add(Wrong, check, "let the sidecar's user enter it", "%v", err)
		return false
	case !st.IsDir():
		x.add(Wrong, check, "name a directory", "%s is a file", dir)
		return false
	}
	if err := bridge.CheckOwner(dir); err != nil {
		x.add(Wrong, check, "name another directory, or remove this one: who made it can read the prompts", "the sidecar does not start: %v", err)
		return false
	}
	f, err := os.CreateTemp(dir, "doctor-*")
	if err != nil {
		x.add(Wrong, check, "let the sidecar's user write to it: sidecar and server should run as the same user, and it must not be mounted read-only", "%v", err)
		return false
	}
	_ = f.Close()
	_ = os.Remove(f.Name())
	if open := st.Mode().Perm() & 0o077; open != 0 {
		x.add(Warning, check, "chmod 0700: whoever can read it can read the prompts", "%s has mode %04o", dir, st.Mode().Perm())
	} else {
		x.ok(check, "%s can be written", dir)
	}
	x.room(dir)
	return true
}

func (x *examination) room(dir string) {
	const check = "room for slots"
	room, memory, err := launch.Room(dir)
	if err != nil {
		x.add(Warning, check, "", "%v", err)
		return
	}
	room += bridge.ReferenceBytes(dir) // which the budget counts too
	size := configs.FormatSize(room >> 20 << 20)
	if !memory {
		x.add(Warning, check, "use a directory in memory, such as one in /dev/shm: references are written and read there", "%s is on a disk", dir)
	}
	if budget := x.cfg.Store.Budget; room < budget {
		x.add(Warning, check, "lower store.budget_bytes to three quarters of the room, or make more: a full directory takes no new references",
			"%s, and store.budget_bytes is %s", size, configs.FormatSize(budget))
		return
	}
	x.ok(check, "%s", size)
}

func (x *examination) secret() {
	const check = "index secret"
	_, path, err := x.cfg.IndexSecret()
	switch {
	case errors.Is(err, fs.ErrNotExist) && x.cfg.Index.SecretFile == "":
		x.ok(check, "made at the first start, as %s", path)
		return
	case errors.Is(err, fs.ErrPermission):
		x.add(Wrong, check, "run as the user whose it is: each command that is given this slot directory must be able to read it", "the sidecar does not start: %v", err)
		return
	case err != nil:
		x.add(Wrong, check, "put at least 16 random bytes there, mode 0600", "the sidecar does not start: %v", err)
		return
	}
	if st, err := os.Stat(path); err == nil && st.Mode().Perm()&0o077 != 0 {
		x.add(Warning, check, "chmod 0600", "%s has mode %04o", path, st.Mode().Perm())
		return
	}
	x.ok(check, "%s", path)
}

func (x *examination) index() {
	if x.cfg.Index.Redis == "" {
		x.ok("index", "embedded")
		return
	}
	// The secret stays out of it: nothing is found, and what is written is removed, or
	// expires soon.
	i, err := matcher.OpenIndex(matcher.IndexOptions{URL: x.cfg.Index.Redis, Prefix: x.cfg.Index.Prefix,
		Secret: make([]byte, 16), TTL: time.Minute, Timeout: x.cfg.Index.Timeout})
	if err != nil {
		x.add(Wrong, "index", "check the files that index.redis names", "the sidecar does not start: %v", err)
		return
	}
	defer i.Close()
	if err := i.Ping(x.ctx); err != nil {
		x.add(Wrong, "index", "check index.redis: host, port, TLS, user and password",
			"Redis does not answer, so that every request goes cold: %v", err)
		return
	}
	// Keeping a reference, and counting a look-up.
	if err := i.RehearseWriting(x.ctx); err != nil {
		x.add(Wrong, "index", "give Redis memory and an evicting maxmemory-policy such as allkeys-lru, name its master and not a replica, and let the user of index.redis do what the manual's chapter on operations lists",
			"Redis answers, but takes no writes, so that no new reference is found: %v", err)
		return
	}
	x.lookUp(i)
}

// lookUp tries what requests do, within index.timeout as they do.
func (x *examination) lookUp(i *matcher.Index) {
	limit := x.cfg.Index.Timeout
	began := time.Now()
	err := i.Rehearse(x.ctx)
	took := time.Since(began).Round(10 * time.Microsecond)
	switch {
	case errors.Is(err, context.DeadlineExceeded) || errors.Is(err, os.ErrDeadlineExceeded):
		x.add(Warning, "index", "move Redis closer, or raise index.timeout (and defaults.time_budget)",
			"Redis answers, but a long prompt's look-up takes longer than index.timeout, %v: such requests go cold", limit)
	case err != nil:
		x.add(Wrong, "index", "let the user of index.redis do what the manual's chapter on operations lists, on keys that begin with index.prefix",
			"Redis answers, but not to look-ups, so that every request goes cold: %v", err)
	default:
		x.ok("index", "a long prompt's look-up takes %v of the %v of index.timeout", took, limit)
	}
}
