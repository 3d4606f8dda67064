package matcher

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"golang.org/x/sync/errgroup"

	"github.com/semsharekv/semsharekv/internal/lab"
)

// quick is short, and long enough for a busy machine to answer within.
const quick = time.Second

// works adds a reference and finds it again.
func works(x *Index, id string) error {
	fp := IdentitySigner(1).Fingerprint(prose(1, 800))
	if err := x.Add(context.Background(), testScope, id, fp, x.now()); err != nil {
		return err
	}
	got, err := x.Find(context.Background(), testScope, fp, 8)
	if err != nil {
		return err
	}
	if len(got.Candidates) == 0 {
		return errors.New("nothing found")
	}
	return nil
}

func TestIndexSurvivesRedisKilled(t *testing.T) {
	noLeaks(t)
	r := lab.StartRedis(t)
	x := openTest(t, IndexOptions{URL: r.URL, Timeout: quick})
	eventually(t, "Redis is used", func() bool { return works(x, "a") == nil })
	r.Kill()
	for range 50 {
		if err := works(x, "a"); err == nil {
			t.Fatal("no error though Redis is dead")
		}
	}
	if err := works(x, "a"); !errors.Is(err, ErrResting) {
		t.Errorf("error %v: want %v, so that requests do not wait", err, ErrResting)
	}
	r.Start()
	eventually(t, "Redis is used again", func() bool { return works(x, "a") == nil })
}

// What is there is found, and no rest is taken: Redis's default, noeviction, refuses writes.
func TestAFullRedisIsLookedUpIn(t *testing.T) {
	noLeaks(t)
	r := lab.StartRedis(t, "--maxmemory", "100mb")
	x := openTest(t, IndexOptions{URL: r.URL})
	fp := IdentitySigner(1).Fingerprint(prose(1, 800))
	mustAdd(t, x, testScope, "a", fp)
	for range 3 {
		mustFind(t, x, testScope, fp)
	}
	if err := x.RehearseWriting(t.Context()); err != nil {
		t.Fatal(err)
	}
	admin := redis.NewClient(&redis.Options{Addr: r.Addr})
	defer admin.Close()
	if keys := admin.Keys(t.Context(), "*").Val(); len(keys) != len(fp.Keys)+3 {
		t.Errorf("%d keys: want those of one reference, and the counters", len(keys))
	}
	if err := admin.ConfigSet(t.Context(), "maxmemory", "1").Err(); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		if got := mustFind(t, x, testScope, fp); len(got.Candidates) != 1 || got.Seen != 0 {
			t.Errorf("found %+v, want one, which nobody counts", got)
		}
		if err := x.Add(t.Context(), testScope, "b", fp, x.now()); !redis.IsOOMError(err) {
			t.Errorf("adding: error %v, want OOM", err)
		}
		if err := x.RehearseWriting(t.Context()); !redis.IsOOMError(err) {
			t.Errorf("writing rehearsed: error %v, want OOM", err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	var told error
	listed := false // by which the store learns what other sidecars do
	x.Watch(ctx, time.Millisecond, Kept{List: func() []string { listed = true; return nil }, Looked: func(err error) { told = err; cancel() }})
	if told == nil || !strings.Contains(told.Error(), "takes no writes") || !listed {
		t.Errorf("a look tells %v, want that it takes no writes; looked at what there is to put in: %v, want true", told, listed)
	}
}

// Behind one address, that of a Kubernetes Service say, another Redis became the master, and the
// one of before serves its connections still, as a replica.
func TestAMasterThatBecameAReplicaIsLeft(t *testing.T) {
	noLeaks(t)
	before, after := lab.StartRedis(t), lab.StartRedis(t)
	var master atomic.Pointer[string]
	master.Store(&before.Addr)
	x := openTest(t, IndexOptions{URL: relayed(t, func() string { return *master.Load() }, 0)})
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	refused, well := false, false
	x.Watch(ctx, 10*time.Millisecond, Kept{List: only(), Looked: func(err error) {
		switch {
		case err != nil:
			refused = true
		case refused:
			well = true
			cancel()
		case *master.Load() == before.Addr:
			master.Store(&after.Addr)
			old := redis.NewClient(&redis.Options{Addr: before.Addr})
			defer old.Close()
			if err := old.Do(t.Context(), "REPLICAOF", "127.0.0.1", "1").Err(); err != nil {
				t.Error(err)
			}
		}
	}})
	if !refused || !well {
		t.Errorf("writes were refused: %v, and taken again: %v, want both", refused, well)
	}
}

func TestIndexDoesNotWaitForAFrozenRedis(t *testing.T) {
	noLeaks(t)
	r := lab.StartRedis(t)
	x := openTest(t, IndexOptions{URL: r.URL, Timeout: quick})
	eventually(t, "Redis is used", func() bool { return works(x, "a") == nil })
	if err := syscall.Kill(r.Pid(), syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	defer syscall.Kill(r.Pid(), syscall.SIGCONT)
	// A frozen Redis never answers: whatever returns here gave up by itself.
	if err := works(x, "a"); err == nil {
		t.Error("no error though Redis is frozen")
	}
	for range 1000 {
		works(x, "a")
	}
	if n := x.db.PoolStats().TotalConns; n > 4 {
		t.Errorf("%d connections to a frozen Redis", n)
	}
	syscall.Kill(r.Pid(), syscall.SIGCONT)
	eventually(t, "Redis is used again", func() bool { return works(x, "a") == nil })
}

func TestIndexGivesUpOnASlowRedis(t *testing.T) {
	noLeaks(t)
	r := lab.StartRedis(t)
	x := openTest(t, IndexOptions{URL: r.URL, Timeout: quick})
	eventually(t, "Redis is used", func() bool { return works(x, "a") == nil })
	admin := redis.NewClient(&redis.Options{Addr: r.Addr})
	defer admin.Close()
	if err := admin.Do(t.Context(), "CLIENT", "PAUSE", "60000", "ALL").Err(); err != nil {
		t.Fatal(err)
	}
	if err := works(x, "a"); err == nil {
		t.Error("no error though Redis pauses for a minute")
	}
	r.Kill() // a pause stops even CLIENT UNPAUSE from other clients being read
	r.Start()
	eventually(t, "Redis is used again", func() bool { return works(x, "a") == nil })
}

func TestIndexIsRebuiltAfterALoss(t *testing.T) {
	noLeaks(t)
	r := lab.StartRedis(t)
	x := openTest(t, IndexOptions{URL: r.URL, Timeout: quick})
	fp := IdentitySigner(1).Fingerprint(prose(1, 800))
	var rebuilt, failed atomic.Int32
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		x.Watch(ctx, 20*time.Millisecond, Kept{List: only("a"),
			Add: func(ctx context.Context, id string) error {
				rebuilt.Add(1)
				return x.Add(ctx, testScope, id, fp, x.now())
			},
			Looked: func(err error) {
				if err != nil {
					failed.Add(1)
				}
				if errors.Is(err, ErrResting) {
					t.Errorf("told %v: want what is wrong with Redis", err)
				}
			}})
	}()
	found := func() bool {
		got, err := x.Find(ctx, testScope, fp, 1)
		return err == nil && len(got.Candidates) == 1
	}
	eventually(t, "it is built at first", found)
	admin := redis.NewClient(&redis.Options{Addr: r.Addr})
	defer admin.Close()
	if err := admin.FlushAll(ctx).Err(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "it is built after a wipe", found)
	r.Kill()
	failed.Store(0)
	eventually(t, "an outage is told without a request or a reference to be put in", func() bool { return failed.Load() >= 3 })
	r.Start()
	eventually(t, "it is built after Redis came back empty", found)
	if n := rebuilt.Load(); n < 3 || n > 10 {
		t.Errorf("rebuilt %d times, want once at the start and after each loss", n)
	}
	cancel()
	<-done
}

func TestIndexMakesUpForAnAddThatFailed(t *testing.T) {
	noLeaks(t)
	r := lab.StartRedis(t)
	x := openTest(t, IndexOptions{URL: r.URL, Timeout: quick})
	fp := IdentitySigner(1).Fingerprint(prose(1, 800))
	admin := redis.NewClient(&redis.Options{Addr: r.Addr})
	defer admin.Close()
	ctx, cancel := context.WithCancel(t.Context())
	var kept atomic.Bool
	list := func() []string {
		if kept.Load() {
			return []string{"a"}
		}
		return nil
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		add := func(ctx context.Context, id string) error { return x.Add(ctx, testScope, id, fp, x.now()) }
		x.Watch(ctx, 20*time.Millisecond, Kept{list, add, ignored})
	}()
	marker := func() bool { n, _ := admin.Keys(ctx, "semsharekv:m:*").Result(); return len(n) > 0 }
	eventually(t, "it watches", marker)
	if err := admin.Do(ctx, "CLIENT", "PAUSE", "60000", "WRITE").Err(); err != nil {
		t.Fatal(err)
	}
	if err := x.Add(ctx, testScope, "a", fp, x.now()); err == nil {
		t.Fatal("no error though Redis takes no writes")
	}
	kept.Store(true)
	if err := admin.Do(ctx, "CLIENT", "UNPAUSE").Err(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "what was missed is found", func() bool {
		got, err := x.Find(ctx, testScope, fp, 1)
		return err == nil && len(got.Candidates) == 1
	})
	cancel()
	<-done
}

// only is a list of what is to be in the index.
func only(ids ...string) func() []string { return func() []string { return ids } }

// ignored is how looks went.
func ignored(error) {}

func TestARebuildGoesOnAfterAFailure(t *testing.T) {
	noLeaks(t)
	x := openTest(t, IndexOptions{})
	fp := IdentitySigner(1).Fingerprint(prose(1, 100))
	ctx, cancel := context.WithCancel(t.Context())
	added := map[string]int{}
	tried := 0
	add := func(ctx context.Context, id string) error {
		if id == "b" {
			if tried++; tried == 5 {
				cancel()
			}
			return errors.New("it always fails")
		}
		added[id]++
		return x.Add(ctx, testScope, id, fp, x.now())
	}
	x.Watch(ctx, time.Millisecond, Kept{only("a", "b", "c", "d"), add, ignored})
	if len(added) != 3 || added["a"] != 1 || added["c"] != 1 || added["d"] != 1 {
		t.Errorf("added %v: want each but b once", added)
	}
}

// A rebuild takes minutes where references are many; what others keep is listed meanwhile.
func TestALongRebuildLooksMeanwhile(t *testing.T) {
	noLeaks(t)
	x := openTest(t, IndexOptions{})
	ctx, cancel := context.WithCancel(t.Context())
	const all = 100
	looks, added := 0, 0
	list := func() (ids []string) {
		looks++
		for i := range all {
			ids = append(ids, fmt.Sprint(i))
		}
		return ids
	}
	add := func(ctx context.Context, id string) error {
		if added++; added == all {
			cancel()
		}
		time.Sleep(time.Millisecond)
		return x.Add(t.Context(), testScope, id, Fingerprint{}, x.now())
	}
	x.Watch(ctx, 5*time.Millisecond, Kept{list, add, ignored})
	if looks < 5 {
		t.Errorf("%d looks in a rebuild of 20 times as long", looks)
	}
}

// A machine that was suspended for longer than the TTL: what is added then drops from its
// lists what seems to have expired, while the embedded index counts time that passed.
func TestIndexIsRebuiltWhenTheClockGoesAhead(t *testing.T) {
	noLeaks(t)
	x := openTest(t, IndexOptions{})
	var ahead atomic.Int64
	x.now = func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) }
	fp := IdentitySigner(1).Fingerprint(prose(1, 800))
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		add := func(ctx context.Context, id string) error { return x.Add(ctx, testScope, id, fp, x.now()) }
		x.Watch(ctx, 20*time.Millisecond, Kept{only("a"), add, ignored})
	}()
	found := func(n int) func() bool {
		return func() bool { return len(mustFind(t, x, testScope, fp).Candidates) == n }
	}
	eventually(t, "it is built", found(1))
	ahead.Store(int64(2 * x.ttl))
	mustAdd(t, x, testScope, "b", fp)
	eventually(t, "it is built again", found(2))
	cancel()
	<-done
}

// A connection takes two round trips before its first command, and more with TLS.
func TestAFarRedisIsUsed(t *testing.T) {
	noLeaks(t)
	x := openTest(t, IndexOptions{URL: farRedis(t, 200*time.Millisecond), Timeout: 300 * time.Millisecond})
	fp := IdentitySigner(1).Fingerprint(prose(1, 100))
	var err error
	for range warmConnections - 1 { // the machine may be busy; failures leave a connection each
		ctx, cancel := context.WithCancel(t.Context())
		x.Watch(ctx, time.Millisecond, Kept{List: only(), Looked: func(error) { cancel() }})
		var all errgroup.Group
		for range warmConnections {
			all.Go(func() error {
				_, err := x.Find(t.Context(), testScope, fp, 1)
				return err
			})
		}
		if err = all.Wait(); err == nil {
			return
		}
	}
	t.Errorf("look-ups at once, after Watch has seen to connections: %v", err)
}

func TestWritingMayTakeLongerThanALookUp(t *testing.T) {
	noLeaks(t)
	x := openTest(t, IndexOptions{URL: farRedis(t, 100*time.Millisecond), Timeout: 50 * time.Millisecond})
	fp := IdentitySigner(1).Fingerprint(prose(1, 100))
	if err := x.Ping(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := x.Rehearse(t.Context()); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a look-up that is rehearsed: error %v, want %v", err, context.DeadlineExceeded)
	}
	eventually(t, "a reference is written", func() bool { return x.Add(t.Context(), testScope, "a", fp, x.now()) == nil })
	if x.rest.rest == 0 {
		t.Error("look-ups wait for Redis again because a write, which may take longer, came through")
	}
}

// farRedis is the URL of a Redis whose answers take that long to come back.
func farRedis(t testing.TB, away time.Duration) string {
	t.Helper()
	near := lab.StartRedis(t)
	return relayed(t, func() string { return near.Addr }, away)
}

// relayed is the URL of what is at another address, for each connection what it is then.
func relayed(t testing.TB, to func() string, away time.Duration) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var running sync.WaitGroup
	t.Cleanup(running.Wait)
	t.Cleanup(func() { ln.Close() })
	running.Go(func() {
		for {
			client, err := ln.Accept()
			if err != nil {
				return
			}
			running.Go(func() { relay(client, to(), away) })
		}
	})
	return "redis://" + ln.Addr().String()
}

// relay connects, which takes a round trip, and has answers come later.
func relay(client net.Conn, to string, away time.Duration) {
	defer client.Close()
	time.Sleep(away)
	server, err := net.Dial("tcp", to)
	if err != nil {
		return
	}
	go func() {
		defer server.Close()
		io.Copy(server, client)
	}()
	delay(client, server, away)
}

// delay passes on what it reads, each piece that much later.
func delay(to io.Writer, from io.Reader, by time.Duration) {
	type piece struct {
		due  time.Time
		data []byte
	}
	pieces := make(chan piece, 1000)
	go func() {
		defer close(pieces)
		for {
			data := make([]byte, 64<<10)
			n, err := from.Read(data)
			if err != nil {
				return
			}
			pieces <- piece{time.Now().Add(by), data[:n]}
		}
	}()
	for p := range pieces {
		time.Sleep(time.Until(p.due))
		to.Write(p.data) // whoever hung up is not waited for
	}
}

// aclUser has a Redis know a user semshare who may do just these things to the index's
// keys, if to any. The default user may do anything.
func aclUser(keys string, commands ...string) []string {
	args := []string{"--user", "default", "on", "nopass", "~*", "&*", "+@all", "--user", "semshare", "on", ">s3cret", "resetchannels", "-@all"}
	if keys != "" {
		args = append(args, keys)
	}
	for _, c := range commands {
		args = append(args, "+"+c)
	}
	return args
}

// noneDenied looks for what a Redis denied its ACL user.
func noneDenied(t *testing.T, addr string) {
	t.Helper()
	admin := redis.NewClient(&redis.Options{Addr: addr})
	defer admin.Close()
	log, err := admin.Do(t.Context(), "ACL", "LOG").Slice()
	if err != nil || len(log) > 0 {
		t.Errorf("%s denied %v, error %v", addr, log, err)
	}
}

func TestIndexAsAnACLUser(t *testing.T) {
	noLeaks(t)
	r := lab.StartRedis(t, aclUser("~semsharekv:*", Commands...)...)
	u := strings.Replace(r.URL, "redis://", "redis://semshare:s3cret@", 1)
	x := openTest(t, IndexOptions{URL: u})
	if err := works(x, "a"); err != nil {
		t.Fatal(err)
	}
	if err := x.Remove(t.Context(), testScope, "a"); err != nil {
		t.Fatal(err)
	}
	if err := x.Ping(t.Context()); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	x.Watch(ctx, time.Hour, Kept{List: only("b"), Add: func(context.Context, string) error { cancel(); return nil }})
	if err := errors.Join(x.Rehearse(t.Context()), x.RehearseWriting(t.Context())); err != nil {
		t.Fatal(err)
	}
	noneDenied(t, r.Addr)

	wrong := openTest(t, IndexOptions{URL: strings.Replace(u, "s3cret", "guess", 1)})
	if err := works(wrong, "a"); err == nil || !strings.Contains(err.Error(), "WRONGPASS") || strings.Contains(err.Error(), "guess") {
		t.Errorf("wrong password: error %v", err)
	}
	other := openTest(t, IndexOptions{URL: u, Prefix: "elsewhere"})
	if err := works(other, "a"); err == nil || !strings.Contains(err.Error(), "NOPERM") {
		t.Errorf("keys that the user may not touch: error %v", err)
	}
}

func TestIndexOverTLS(t *testing.T) {
	noLeaks(t)
	dir := t.TempDir()
	ca := writeCerts(t, dir)
	port, err := lab.FreePort()
	if err != nil {
		t.Fatal(err)
	}
	file := func(name string) string { return filepath.Join(dir, name) }
	lab.StartRedis(t, "--tls-port", fmt.Sprint(port), "--tls-auth-clients", "yes",
		"--tls-cert-file", file("server.pem"), "--tls-key-file", file("server.key"), "--tls-ca-cert-file", ca)
	addr := fmt.Sprintf("rediss://127.0.0.1:%d/", port)
	x := openTest(t, IndexOptions{URL: addr + "?ca_file=" + ca + "&cert_file=" + file("client.pem") + "&key_file=" + file("client.key")})
	if err := works(x, "a"); err != nil {
		t.Fatal(err)
	}
	untrusted := openTest(t, IndexOptions{URL: addr})
	if err := works(untrusted, "a"); err == nil || !strings.Contains(err.Error(), "certificate") {
		t.Errorf("a server whose certificate nobody vouches for: error %v", err)
	}
	anonymous := openTest(t, IndexOptions{URL: addr + "?ca_file=" + ca})
	if works(anonymous, "a") == nil {
		t.Error("no error without the client certificate that the server wants")
	}

	// A certificate is renewed in its place.
	renewed := t.TempDir()
	writeCerts(t, renewed) // by somebody else
	mine := addr + "?ca_file=" + ca + "&cert_file=" + filepath.Join(renewed, "client.pem") + "&key_file=" + filepath.Join(renewed, "client.key")
	y := openTest(t, IndexOptions{URL: mine})
	if works(y, "a") == nil {
		t.Fatal("no error with a client certificate of another authority")
	}
	for _, name := range []string{"client.pem", "client.key"} {
		text, err := os.ReadFile(file(name))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(renewed, name), text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for end := time.Now().Add(time.Minute); works(y, "a") != nil; time.Sleep(50 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("a certificate that was renewed is not used")
		}
	}
}

func TestIndexOverAUnixSocket(t *testing.T) {
	noLeaks(t)
	dir, err := os.MkdirTemp("", "redis") // a socket's path must be short
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	socket := filepath.Join(dir, "s")
	lab.StartRedis(t, "--unixsocket", socket, "--requirepass", "s3cret")
	x := openTest(t, IndexOptions{URL: "unix://:s3cret@" + socket + "?db=1"})
	if err := works(x, "a"); err != nil {
		t.Fatal(err)
	}
}

func TestIndexInACluster(t *testing.T) {
	noLeaks(t)
	var nodes []*redis.Client
	var urls []string
	for range 3 {
		user := aclUser("~semsharekv:*", slices.Concat(Commands, ClusterCommands)...)
		r := lab.StartRedis(t, append(user, "--cluster-enabled", "yes", "--cluster-node-timeout", "2000")...)
		c := redis.NewClient(&redis.Options{Addr: r.Addr})
		defer c.Close()
		nodes, urls = append(nodes, c), append(urls, r.Addr)
	}
	ctx := t.Context()
	for i, c := range nodes {
		if err := c.ClusterAddSlotsRange(ctx, i*16384/3, (i+1)*16384/3-1).Err(); err != nil {
			t.Fatal(err)
		}
		host, port, _ := net.SplitHostPort(urls[0])
		if err := c.ClusterMeet(ctx, host, port).Err(); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, "the cluster is up", func() bool {
		for _, c := range nodes {
			info, err := c.ClusterInfo(ctx).Result()
			if err != nil || !strings.Contains(info, "cluster_state:ok") || !strings.Contains(info, "cluster_known_nodes:3") {
				return false
			}
		}
		return true
	})
	x := openTest(t, IndexOptions{URL: "redis+cluster://semshare:s3cret@" + urls[0] + "?addr=" + urls[1]})
	if err := works(x, "a"); err != nil {
		t.Fatal(err)
	}
	for i, c := range nodes {
		if n, err := c.DBSize(ctx).Result(); err != nil || n == 0 {
			t.Errorf("node %d holds %d keys, error %v: want a share", i, n, err)
		}
	}
	if err := x.Remove(ctx, testScope, "a"); err != nil {
		t.Fatal(err)
	}
	if err := x.Rehearse(ctx); err != nil {
		t.Fatal(err)
	}
	for _, addr := range urls {
		noneDenied(t, addr)
	}
}

func TestIndexFollowsSentinelToTheNewMaster(t *testing.T) {
	noLeaks(t)
	user := aclUser("~semsharekv:*", Commands...)
	master := lab.StartRedis(t, user...)
	host, port, _ := net.SplitHostPort(master.Addr)
	replica := lab.StartRedis(t, append(user, "--replicaof", host, port, "--repl-diskless-sync-delay", "0")...)
	conf := filepath.Join(t.TempDir(), "sentinel.conf")
	text := fmt.Sprintf("sentinel monitor kv %s %s 1\nsentinel down-after-milliseconds kv 300\nsentinel failover-timeout kv 3000\n", host, port)
	text += "user default on nopass ~* &* +@all\nuser watcher on >s3ntinel resetchannels &" + strings.Join(SentinelChannels, " &") + " -@all +" + strings.Join(SentinelCommands, " +") + "\n"
	if err := os.WriteFile(conf, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	sentinel := startSentinel(t, conf)
	x := openTest(t, IndexOptions{URL: "redis+sentinel://watcher:s3ntinel@" + sentinel + "/?master_name=kv&username=semshare&password=s3cret", Timeout: time.Second})
	eventually(t, "the master is used", func() bool { return works(x, "a") == nil })
	admin := redis.NewSentinelClient(&redis.Options{Addr: sentinel})
	defer admin.Close()
	eventually(t, "the sentinel knows the replica", func() bool {
		replicas, err := admin.Replicas(t.Context(), "kv").Result()
		return err == nil && len(replicas) == 1 && replicas[0]["master-link-status"] == "ok"
	})
	master.Kill()
	eventually(t, "the promoted replica is used", func() bool { return works(x, "b") == nil })
	noneDenied(t, replica.Addr)
	noneDenied(t, sentinel)
}

// startSentinel runs a sentinel until the test ends and returns its address. Its
// configuration file has to come first, and it rewrites it.
func startSentinel(t testing.TB, conf string) string {
	t.Helper()
	port, err := lab.FreePort()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("redis-server", conf, "--sentinel", "--port", fmt.Sprint(port), "--bind", "127.0.0.1")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
	})
	addr := fmt.Sprintf("127.0.0.1:%d", port)
	eventually(t, "the sentinel listens", func() bool {
		c, err := net.Dial("tcp", addr)
		if err == nil {
			c.Close()
		}
		return err == nil
	})
	return addr
}

func TestIndexURLErrors(t *testing.T) {
	f := func(url, want string) {
		t.Helper()
		_, err := OpenIndex(IndexOptions{URL: url, Secret: []byte("s")})
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "s3cret") {
			t.Errorf("%s: error %v, want %q and no password", url, err, want)
		}
	}
	f("redis://:s3cret@h/x", "index: redis URL: cannot be used: invalid database number")
	f("rediss://h?ca_file=/nowhere/ca.pem", "ca_file")
	f("rediss://h?cert_file=/nowhere/c.pem", "cert_file")
	if _, err := OpenIndex(IndexOptions{}); err == nil || !strings.Contains(err.Error(), "secret") {
		t.Errorf("without a secret: error %v", err)
	}
}

// writeCerts makes a CA and certificates for a server on 127.0.0.1 and a client,
// and returns the path of the CA's.
func writeCerts(t testing.TB, dir string) string {
	t.Helper()
	write := func(name, kind string, der []byte) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	template := func(serial int64, name string) *x509.Certificate {
		return &x509.Certificate{SerialNumber: big.NewInt(serial), Subject: pkix.Name{CommonName: name},
			NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
			KeyUsage:    x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
			ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
			IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, BasicConstraintsValid: true}
	}
	newKey := func() *ecdsa.PrivateKey {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		return key
	}
	root, rootKey := template(1, "test CA"), newKey()
	root.IsCA = true
	sign := func(c *x509.Certificate, key *ecdsa.PrivateKey) []byte {
		der, err := x509.CreateCertificate(rand.Reader, c, root, &key.PublicKey, rootKey)
		if err != nil {
			t.Fatal(err)
		}
		return der
	}
	for i, name := range []string{"server", "client"} {
		key := newKey()
		der, err := x509.MarshalECPrivateKey(key)
		if err != nil {
			t.Fatal(err)
		}
		write(name+".pem", "CERTIFICATE", sign(template(int64(i+2), name), key))
		write(name+".key", "EC PRIVATE KEY", der)
	}
	return write("ca.pem", "CERTIFICATE", sign(root, rootKey))
}
