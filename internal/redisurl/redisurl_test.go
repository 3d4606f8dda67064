package redisurl

import (
	"strings"
	"testing"
)

func TestParse(t *testing.T) {
	f := func(raw string, want func(*Target) bool) {
		t.Helper()
		target, err := Parse(raw)
		if err != nil || !want(target) {
			t.Errorf("%s: %+v, error %v", raw, target, err)
		}
	}
	f("redis://h", func(t *Target) bool { return t.Single.Addr == "h:6379" && t.Files == Files{} })
	f("redis://u:p%2Fa%40b%23c%3Fd%25@h:1/2", func(t *Target) bool {
		return t.Single.Username == "u" && t.Single.Password == "p/a@b#c?d%" && t.Single.Addr == "h:1" && t.Single.DB == 2
	})
	f("unix://:p@/run/a@b.sock?db=1", func(t *Target) bool {
		return t.Single.Addr == "/run/a@b.sock" && t.Single.Password == "p" && t.Single.DB == 1
	})
	f("rediss://h?ca_file=/a@b.pem&cert_file=/c&key_file=/k", func(t *Target) bool {
		return t.Single.TLSConfig != nil && t.Files == Files{"/a@b.pem", "/c", "/k"}
	})
	f("redis+sentinel://h:1?master_name=m&addr=i:2", func(t *Target) bool {
		return t.Sentinel.MasterName == "m" && len(t.Sentinel.SentinelAddrs) == 2
	})
	f("rediss+cluster://h:1?addr=i:2", func(t *Target) bool { return len(t.Cluster.Addrs) == 2 && t.Cluster.TLSConfig != nil })
}

func TestParseNamesWhatIsWrong(t *testing.T) {
	f := func(raw, want string) {
		t.Helper()
		if _, err := Parse(raw); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: error %v, want %q", raw, err, want)
		}
	}
	f("", "not a Redis URL; want one that begins with redis://, ")
	f("localhost:6379", "not a Redis URL")
	f("http://h", "not a Redis URL")
	f("redis+ring://h", "not a Redis URL")
	f("redis:///1", "not a Redis URL")
	f("unix://", "not a Redis URL")
	f("unix://run/redis.sock", "not a Redis URL")
	f("redis://localhost:notaport", `invalid port ":notaport" after host; want one like redis://HOST:PORT`)
	f("redis://localhost:6379/abc", `invalid database number: "abc"`)
	f("redis://localhost:6379?foo=1", "unexpected option: foo")
	f("redis://localhost#1", "has a fragment")
	f("unix:///run/redis.sock?db=first", "invalid database number")
	f("redis+sentinel://h:26379", "no master_name")
	f("redis+sentinel://h?master_name=m&route_randomly=true", "route_randomly are for clusters")
	f("redis+cluster://h?addr=nonsense", "addr")
	f("redis://h?ca_file=x", "want a rediss scheme")
}

// No part of a password is shown, be it one that was read as host, port, path, query or
// fragment.
func TestErrorsHoldNoPassword(t *testing.T) {
	f := func(raw, want string) {
		t.Helper()
		_, err := Parse(raw)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: error %v, want %q", raw, err, want)
			return
		}
		for _, part := range []string{"s3", "cr3t", "localhost"} {
			if strings.Contains(err.Error(), part) {
				t.Errorf("%s: %v holds %q", raw, err, part)
			}
		}
	}
	for _, between := range []string{"/", "#", "?", "/x#", "@/", "@?", "@#", "%", "?a=", ":/"} {
		f("redis://:s3"+between+"cr3t@localhost:6379", "in the password are written %2F")
		f("rediss+cluster://u:s3"+between+"cr3t@localhost:6379", "in the password are written %2F")
		f("redis://:12"+between+"cr3t@localhost:6379", "in the password are written %2F")
	}
	f("redis://:s3cr3t@h:port", "HOST:PORT")
	f("redis://:s3cr3t@h/x", "invalid database number")
	f("http://:s3cr3t@h", "not a Redis URL")
	f("redis+sentinel://:s3cr3t@h", "no master_name")
	f("redis+cluster://:s3cr3t@h?addr=nonsense", "addr")
}
