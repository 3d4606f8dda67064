package llamaserver

import "testing"

func TestOneAddressIsNoMoreThanTheServers(t *testing.T) {
	f := func(hosts, want string, ok bool) {
		t.Helper()
		if got, gotOK := OneAddress(hosts); got != want || gotOK != ok {
			t.Errorf("%q: %q, %v; want %q, %v", hosts, got, gotOK, want, ok)
		}
	}
	f("", "", true)
	f("0.0.0.0", "0.0.0.0", true)
	f("192.0.2.1", "192.0.2.1", true)
	f("[::1]", "::1", true)
	f("localhost", "localhost", true)
	f("127.0.0.1,::1", "127.0.0.1", true)
	f("[::1], localhost", "::1", true)
	f("LocalHost,127.0.0.2", "LocalHost", true)
	f("0.0.0.0,::", "", true)
	f("192.0.2.1,[::]", "", true)
	f("192.0.2.1,192.0.2.2", "", false)
	f("127.0.0.1,192.0.2.1", "", false)
	f("127.0.0.1,", "", false)
}
