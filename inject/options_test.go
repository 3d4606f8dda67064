package inject

import (
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/types"
)

func TestOptionsSayWhatIsMissing(t *testing.T) {
	f := func(want string, change func(*Options)) {
		t.Helper()
		o := Options{Settings: testSettings(), Listen: ":9443", Admin: ":8090", Host: "s.n.svc", Configuration: "w",
			Secret: types.NamespacedName{Namespace: "n", Name: "s"}}
		change(&o)
		err := o.Check()
		if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("error %v, want %q", err, want)
		}
	}
	const none = "there is no certificate"
	f("", func(*Options) {})
	f("", func(o *Options) {
		o.CertDir, o.Secret, o.Host, o.Configuration = "/certs", types.NamespacedName{}, "", ""
	})
	f("image", func(o *Options) { o.Settings.Image = "" })
	f(none, func(o *Options) { o.Secret.Name = "" })
	f(none, func(o *Options) { o.Secret.Namespace = "" })
	f(none, func(o *Options) { o.Host = "" })
	f(none, func(o *Options) { o.Configuration = "" })
	f("listen: ", func(o *Options) { o.Listen = "9443" })
}
