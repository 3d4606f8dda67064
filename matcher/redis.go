package matcher

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/maintnotifications"
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

// openRedis makes a client for the URL. Beside go-redis's own query parameters
// it understands ca_file, cert_file and key_file (PEM) for TLS. Sentinel URLs
// name the sentinels and ?master_name=NAME; further nodes of Sentinel and
// Cluster are given as ?addr=host:port; unix:///PATH names a socket. Errors never contain the URL: it may
// hold a password.
func openRedis(raw string, timeout time.Duration) (redis.UniversalClient, func() error, error) {
	u, err := url.Parse(raw)
	if err != nil {
		return nil, nil, errors.New("redis URL: not a URL (its text is withheld: it may hold a password)")
	}
	scheme, kind, _ := strings.Cut(u.Scheme, "+")
	u.Scheme = scheme
	files, err := takeTLSFiles(u)
	if err != nil {
		return nil, nil, err
	}
	db, err := connect(u, kind, files, timeout)
	if err != nil {
		return nil, nil, fmt.Errorf("redis URL for %s: %w", cmp.Or(u.Host, u.Path), err)
	}
	return db, db.Close, nil
}

func connect(u *url.URL, kind string, files *tls.Config, timeout time.Duration) (redis.UniversalClient, error) {
	if u.Scheme != "redis" && u.Scheme != "rediss" && u.Scheme != "unix" {
		return nil, fmt.Errorf("scheme %q: want redis, rediss, unix, redis+sentinel or redis+cluster (rediss+ with TLS)", u.Scheme)
	}
	// Each operation has a deadline of its own; a connection may take longer.
	timeout = max(timeout, patience)
	switch kind {
	case "":
		o, err := redis.ParseURL(u.String())
		if err != nil {
			return nil, err
		}
		bound(o, timeout)
		o.TLSConfig = withFiles(o.TLSConfig, files)
		return redis.NewClient(o), nil
	case "sentinel":
		o, err := redis.ParseFailoverURL(u.String())
		if err != nil {
			return nil, err
		}
		if o.MasterName == "" {
			return nil, errors.New("no master_name: want redis+sentinel://host:26379/?master_name=NAME")
		}
		o.DialTimeout, o.ReadTimeout, o.WriteTimeout, o.PoolTimeout = timeout, timeout, timeout, timeout
		o.ContextTimeoutEnabled, o.MaxRetries, o.DialerRetries = true, maxRetries, 1
		o.DisableIdentity, o.PipelinePoolSize = true, onePool
		o.TLSConfig = withFiles(o.TLSConfig, files)
		return redis.NewFailoverClient(o), nil
	case "cluster":
		o, err := redis.ParseClusterURL(u.String())
		if err != nil {
			return nil, err
		}
		o.DialTimeout, o.ReadTimeout, o.WriteTimeout, o.PoolTimeout = timeout, timeout, timeout, timeout
		o.ContextTimeoutEnabled, o.MaxRetries, o.DialerRetries = true, maxRetries, 1
		o.DisableIdentity, o.PipelinePoolSize = true, onePool
		o.MaintNotificationsConfig = noMaintenance()
		o.TLSConfig = withFiles(o.TLSConfig, files)
		return redis.NewClusterClient(o), nil
	}
	return nil, fmt.Errorf("scheme %s+%s: want +sentinel or +cluster", u.Scheme, kind)
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
	o.DisableIdentity, o.PipelinePoolSize = true, onePool
	o.MaintNotificationsConfig = noMaintenance()
}

func noMaintenance() *maintnotifications.Config {
	return &maintnotifications.Config{Mode: maintnotifications.ModeDisabled}
}

// takeTLSFiles reads the files that the URL's query names and takes them out of
// the query.
func takeTLSFiles(u *url.URL) (*tls.Config, error) {
	q := u.Query()
	ca, cert, key := q.Get("ca_file"), q.Get("cert_file"), q.Get("key_file")
	for _, name := range []string{"ca_file", "cert_file", "key_file"} {
		q.Del(name)
	}
	u.RawQuery = q.Encode()
	if ca == "" && cert == "" && key == "" {
		return nil, nil
	}
	if u.Scheme != "rediss" {
		return nil, fmt.Errorf("redis URL: ca_file, cert_file and key_file need a rediss scheme, not %q", u.Scheme)
	}
	c := &tls.Config{}
	if ca != "" {
		pem, err := os.ReadFile(ca)
		if err != nil {
			return nil, fmt.Errorf("redis URL: ca_file: %w", err)
		}
		c.RootCAs = x509.NewCertPool()
		if !c.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("redis URL: ca_file %s: no PEM certificate in it", ca)
		}
	}
	if cert != "" || key != "" {
		pair, err := tls.LoadX509KeyPair(cert, key)
		if err != nil {
			return nil, fmt.Errorf("redis URL: cert_file and key_file: %w", err)
		}
		c.Certificates = []tls.Certificate{pair}
	}
	return c, nil
}

func withFiles(c, files *tls.Config) *tls.Config {
	if c != nil && files != nil {
		c.RootCAs, c.Certificates = files.RootCAs, files.Certificates
	}
	return c
}
