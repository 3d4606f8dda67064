package matcher

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"os"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/maintnotifications"

	"github.com/semsharekv/semsharekv/internal/redisurl"
)

// Commands are the Redis commands that the index sends, and all that an ACL
// user needs, on keys that start with the prefix and a colon.
var Commands = []string{"ping", "hello", "auth", "select", "zadd", "zrem", "zcard", "zrevrange",
	"zremrangebyrank", "zremrangebyscore", "expire", "get", "set", "del", "exists", "hincrby", "hmget"}

// ClusterCommands are needed besides by a Redis Cluster's user: which node has which
// keys, what commands there are, and asking a node for what is just being moved to it.
var ClusterCommands = []string{"cluster|slots", "command", "asking"}

// SentinelCommands are all that a user of the sentinels themselves needs, on the
// channels SentinelChannels, by which a sentinel tells of a new master.
var (
	SentinelCommands = []string{"ping", "hello", "auth", "subscribe", "sentinel|get-master-addr-by-name", "sentinel|sentinels"}
	SentinelChannels = []string{"+switch-master", "+replica-reconf-done"}
)

// quiet drops the lines that go-redis writes to stderr by itself: whatever
// matters comes back as an error, and is logged once by who asked.
type quiet struct{}

func (quiet) Printf(context.Context, string, ...any) {}

func init() { redis.SetLogger(quiet{}) }

// openRedis makes a client for the URL. Errors hold no password.
func openRedis(raw string, timeout time.Duration) (redis.UniversalClient, func() error, error) {
	target, err := redisurl.Parse(raw)
	if err != nil {
		return nil, nil, fmt.Errorf("redis URL: %w", err)
	}
	if _, err := withFiles(&tls.Config{}, target.Files); err != nil {
		return nil, nil, fmt.Errorf("redis URL: %w", err)
	}
	// Each operation has a deadline of its own; a connection may take longer.
	db := connect(target, max(timeout, leastWriteTimeout))
	return db, db.Close, nil
}

func connect(t *redisurl.Target, timeout time.Duration) redis.UniversalClient {
	switch {
	case t.Sentinel != nil:
		o := t.Sentinel
		o.DialTimeout, o.ReadTimeout, o.WriteTimeout, o.PoolTimeout = timeout, timeout, timeout, timeout
		o.ContextTimeoutEnabled, o.MaxRetries, o.DialerRetries = true, maxRetries, 1
		o.DisableIdentity, o.PipelinePoolSize, o.MinIdleConns = true, onePool, 0
		o.Dialer = dialer(o.TLSConfig, t.Files, timeout)
		return redis.NewFailoverClient(o)
	case t.Cluster != nil:
		o := t.Cluster
		o.DialTimeout, o.ReadTimeout, o.WriteTimeout, o.PoolTimeout = timeout, timeout, timeout, timeout
		o.ContextTimeoutEnabled, o.MaxRetries, o.DialerRetries = true, maxRetries, 1
		o.DisableIdentity, o.PipelinePoolSize, o.MinIdleConns = true, onePool, 0
		o.MaintNotificationsConfig = noMaintenance()
		o.Dialer = dialer(o.TLSConfig, t.Files, timeout)
		return redis.NewClusterClient(o)
	}
	bound(t.Single, timeout)
	t.Single.Dialer = dialer(t.Single.TLSConfig, t.Files, timeout)
	return redis.NewClient(t.Single)
}

// maxRetries lets an operation try once more, within its timeout: a pooled
// connection may have died with a Redis that is back already.
const maxRetries = 1

// onePool has pipelines take the same connections as all else, so that those that are
// kept ready are theirs.
const onePool = -1

// bound makes a client keep to the timeout and send nothing but our commands.
func bound(o *redis.Options, timeout time.Duration) {
	o.DialTimeout, o.ReadTimeout, o.WriteTimeout, o.PoolTimeout = timeout, timeout, timeout, timeout
	o.ContextTimeoutEnabled, o.MaxRetries, o.DialerRetries = true, maxRetries, 1
	o.DisableIdentity, o.PipelinePoolSize, o.MinIdleConns = true, onePool, 0
	o.MaintNotificationsConfig = noMaintenance()
}

func noMaintenance() *maintnotifications.Config {
	return &maintnotifications.Config{Mode: maintnotifications.ModeDisabled}
}

// dialer makes connections with what the files hold by then, as certificates expire and are
// renewed; nil, which is go-redis' own, where no file is named.
func dialer(c *tls.Config, f redisurl.Files, timeout time.Duration) func(ctx context.Context, network, addr string) (net.Conn, error) {
	if c == nil || f == (redisurl.Files{}) {
		return nil
	}
	return func(ctx context.Context, network, addr string) (net.Conn, error) {
		now, err := withFiles(c.Clone(), f)
		if err != nil {
			return nil, err
		}
		d := tls.Dialer{NetDialer: &net.Dialer{Timeout: timeout}, Config: now}
		return d.DialContext(ctx, network, addr)
	}
}

// withFiles adds to c what the files hold, where they are named.
func withFiles(c *tls.Config, f redisurl.Files) (*tls.Config, error) {
	if f.CA != "" {
		pem, err := os.ReadFile(f.CA)
		if err != nil {
			return nil, fmt.Errorf("ca_file: %w", err)
		}
		c.RootCAs = x509.NewCertPool()
		if !c.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("ca_file %s: no PEM certificate in it", f.CA)
		}
	}
	if f.Cert != "" || f.Key != "" {
		pair, err := tls.LoadX509KeyPair(f.Cert, f.Key)
		if err != nil {
			return nil, fmt.Errorf("cert_file and key_file: %w", err)
		}
		c.Certificates = []tls.Certificate{pair}
	}
	return c, nil
}
