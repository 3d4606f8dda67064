// Package redisurl reads the URLs that name a Redis: those of go-redis, and beside them
// redis+sentinel and redis+cluster. The configuration is validated by it, and the index
// opened, so that what is valid can be opened, but for the files for TLS that it names. It
// connects to nothing and reads no file.
package redisurl

import (
	"errors"
	"fmt"
	"net/url"
	"path"
	"slices"
	"strings"

	"github.com/redis/go-redis/v9"
)

// Target is what a URL names: a server, a master that sentinels know, or a cluster. One of
// the three is set.
type Target struct {
	Single   *redis.Options
	Sentinel *redis.FailoverOptions
	Cluster  *redis.ClusterOptions
	// Files are those for TLS.
	Files Files
}

// Files are the paths of PEM files; "" where none is named.
type Files struct{ CA, Cert, Key string }

// schemes are those before a host; unix comes before a path.
var schemes = []string{"redis", "rediss", "redis+sentinel", "rediss+sentinel", "redis+cluster", "rediss+cluster"}

// Parse reads a URL. Beside go-redis's own query parameters it understands ca_file,
// cert_file and key_file for TLS. Sentinel URLs name the sentinels and ?master_name=NAME;
// further nodes of Sentinel and Cluster are given as ?addr=host:port; unix:///PATH names a
// socket. Errors say nothing of what may be a part of the password.
func Parse(raw string) (*Target, error) {
	t, err := parse(raw)
	if err != nil && passwordMisread(raw) {
		return nil, errors.New("cannot be read, and is withheld, since any part of it may be the password; want redis://USER:PASSWORD@HOST:PORT, where / @ # ? and % in the password are written %2F %40 %23 %3F and %25")
	}
	return t, err
}

// passwordMisread tells whether what was read as something else may be a part of the
// password: a / ? or # in it ends what a URL says of the host, and the @ stands behind.
func passwordMisread(raw string) bool {
	u, err := url.Parse(raw)
	if err != nil {
		return strings.Contains(raw, "@")
	}
	return strings.Contains(u.Path+u.RawQuery+u.Fragment, "@")
}

func parse(raw string) (*Target, error) {
	u, err := url.Parse(raw)
	if err != nil {
		return nil, notURL(err)
	}
	if !known(u) {
		return nil, fmt.Errorf("%q is not a Redis URL; want one that begins with %s:// or unix:///", u.Redacted(), strings.Join(schemes, "://, "))
	}
	if u.Fragment != "" || u.Scheme != "unix" && strings.Contains(u.Path, "@") { // which a cluster's URL would ignore
		return nil, fmt.Errorf("%q has a fragment, or an @ in its path; want a Redis URL without", u.Redacted())
	}
	scheme, kind, _ := strings.Cut(u.Scheme, "+")
	u.Scheme = scheme
	t := &Target{Files: takeFiles(u)}
	if t.Files != (Files{}) && scheme != "rediss" {
		return nil, fmt.Errorf("%q names files for TLS; want a rediss scheme with ca_file, cert_file and key_file", u.Redacted())
	}
	if err := t.read(kind, u.String()); err != nil {
		return nil, fmt.Errorf("cannot be used: %s", strings.TrimPrefix(err.Error(), "redis: "))
	}
	return t, nil
}

// notURL is the parser's error without the text, which it begins with.
func notURL(err error) error {
	var fault *url.Error
	if errors.As(err, &fault) {
		err = fault.Err
	}
	return fmt.Errorf("is not a URL: %w; want one like redis://HOST:PORT", err)
}

func known(u *url.URL) bool {
	if u.Scheme == "unix" {
		return u.Host == "" && path.IsAbs(u.Path)
	}
	return u.Host != "" && slices.Contains(schemes, u.Scheme)
}

// takeFiles takes the files that the query names out of it.
func takeFiles(u *url.URL) Files {
	q := u.Query()
	f := Files{CA: q.Get("ca_file"), Cert: q.Get("cert_file"), Key: q.Get("key_file")}
	for _, name := range []string{"ca_file", "cert_file", "key_file"} {
		q.Del(name)
	}
	u.RawQuery = q.Encode()
	return f
}

func (t *Target) read(kind, text string) (err error) {
	switch kind {
	case "sentinel":
		if t.Sentinel, err = redis.ParseFailoverURL(text); err != nil {
			return err
		}
		return checkSentinel(t.Sentinel)
	case "cluster":
		t.Cluster, err = redis.ParseClusterURL(text)
	default:
		t.Single, err = redis.ParseURL(text)
	}
	return err
}

// checkSentinel refuses what go-redis panics at or waits for in vain.
func checkSentinel(o *redis.FailoverOptions) error {
	if o.MasterName == "" {
		return errors.New("no master_name: want redis+sentinel://HOST:26379/?master_name=NAME")
	}
	if o.RouteByLatency || o.RouteRandomly {
		return errors.New("route_by_latency and route_randomly are for clusters: leave them out")
	}
	return nil
}
