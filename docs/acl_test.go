package docs

import (
	"slices"
	"strings"
	"testing"

	"github.com/semsharekv/semsharekv/matcher"
)

func TestRightsInRedisAreDocumented(t *testing.T) {
	page := strings.ReplaceAll(read(t, "operations.md"), `\|`, "|")
	f := func(user string, rights ...string) {
		t.Helper()
		if want := strings.Join(rights, " "); !strings.Contains(page, want) {
			t.Errorf("operations.md lacks the rights of %s: %s", user, want)
		}
	}
	allow := func(sign string, names []string) []string {
		out := slices.Clone(names)
		for i := range out {
			out[i] = sign + out[i]
		}
		return out
	}
	f("Redis's user", slices.Concat([]string{"~semsharekv:*", "-@all"}, allow("+", matcher.Commands))...)
	f("a Cluster's user", allow("+", matcher.ClusterCommands)...)
	f("the sentinels' user", slices.Concat([]string{"resetchannels"}, allow("&", matcher.SentinelChannels), []string{"-@all"}, allow("+", matcher.SentinelCommands))...)
}
