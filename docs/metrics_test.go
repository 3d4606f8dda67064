package docs

import (
	"go/ast"
	"net/http"
	"net/http/httptest"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/semsharekv/semsharekv/bridge"
	"github.com/semsharekv/semsharekv/proxy"
)

const (
	ofTheSidecar = "## Metrics of the sidecar"
	ofTheWebhook = "## Metrics of the webhook"
)

// metric is one row of a table of metrics.
type metric struct{ name, kind, labels string }

func documented(t *testing.T, heading string) []metric {
	t.Helper()
	var out []metric
	for _, row := range table(t, "operations.md", heading) {
		if len(row) < 4 {
			t.Fatalf("%v: want a row of name, type, labels, meaning", row)
		}
		var labels []string
		for _, m := range quoted.FindAllStringSubmatch(row[2], -1) {
			labels = append(labels, m[1])
		}
		out = append(out, metric{strings.Trim(row[0], "`"), row[1], strings.Join(labels, ",")})
	}
	return out
}

var (
	fullName       = regexp.MustCompile(`fqName: "([^"]+)"`)
	variableLabels = regexp.MustCompile(`variableLabels: \{([^}]*)\}`)
)

// described are the metrics of proxy.Metrics by what they say of themselves.
func described(m *proxy.Metrics) []metric {
	kinds := map[string]string{"Counter": "counter", "CounterVec": "counter", "Gauge": "gauge", "HistogramVec": "histogram"}
	var out []metric
	v := reflect.ValueOf(m).Elem()
	for i := range v.NumField() {
		if !v.Type().Field(i).IsExported() {
			continue
		}
		c, ok := v.Field(i).Interface().(prometheus.Collector)
		if !ok {
			continue
		}
		kind := v.Type().Field(i).Type
		if kind.Kind() == reflect.Pointer {
			kind = kind.Elem()
		}
		descriptions := make(chan *prometheus.Desc, 10)
		c.Describe(descriptions)
		text := (<-descriptions).String()
		out = append(out, metric{fullName.FindStringSubmatch(text)[1], kinds[kind.Name()], variableLabels.FindStringSubmatch(text)[1]})
	}
	return out
}

func TestEveryMetricOfTheSidecarIsDocumented(t *testing.T) {
	rows, there := documented(t, ofTheSidecar), described(proxy.NewMetrics())
	for _, m := range there {
		if !slices.Contains(rows, m) {
			t.Errorf("%+v is not documented so", m)
		}
	}
	for _, m := range rows {
		if !slices.Contains(there, m) {
			t.Errorf("%+v is documented, but not so in the code", m)
		}
	}
}

// page is what /metrics answers.
func page(t *testing.T, m *proxy.Metrics) string {
	t.Helper()
	w := httptest.NewRecorder()
	m.Handler().ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/metrics", nil))
	return w.Body.String()
}

// What /metrics answers has no families but those of the table and those of the
// client library.
func TestMetricsPageHasOnlyWhatIsDocumented(t *testing.T) {
	m := proxy.NewMetrics()
	m.Requests.WithLabelValues("chat", "cold", "no gain").Inc()
	m.Steps.WithLabelValues("tokens").Observe(1)
	rows := documented(t, ofTheSidecar)
	ours := 0
	for _, f := range regexp.MustCompile(`(?m)^# TYPE (\S+) (\S+)$`).FindAllStringSubmatch(page(t, m), -1) {
		if strings.HasPrefix(f[1], "go_") || strings.HasPrefix(f[1], "process_") {
			continue
		}
		ours++
		if !slices.ContainsFunc(rows, func(m metric) bool { return m.name == f[1] && m.kind == f[2] }) {
			t.Errorf("%s, a %s, is not documented", f[1], f[2])
		}
	}
	if ours < 10 {
		t.Errorf("%d families of ours on the page", ours)
	}
}

// The webhook's metrics are not exported: they are read from the source.
func TestEveryMetricOfTheWebhookIsDocumented(t *testing.T) {
	var there []metric
	each(source(t, "inject"), func(c *ast.CallExpr) {
		kind, ok := map[string]string{"NewCounter": "counter", "NewCounterVec": "counter", "NewGauge": "gauge"}[called(c)]
		if !ok {
			return
		}
		m := metric{kind: kind}
		for _, e := range c.Args[0].(*ast.CompositeLit).Elts {
			if kv := e.(*ast.KeyValueExpr); kv.Key.(*ast.Ident).Name == "Name" {
				m.name, _ = literal(kv.Value)
			}
		}
		if len(c.Args) > 1 {
			var labels []string
			for _, e := range c.Args[1].(*ast.CompositeLit).Elts {
				label, _ := literal(e)
				labels = append(labels, label)
			}
			m.labels = strings.Join(labels, ",")
		}
		there = append(there, m)
	})
	rows := documented(t, ofTheWebhook)
	for _, m := range append(slices.Clone(rows), there...) {
		if !slices.Contains(rows, m) || !slices.Contains(there, m) {
			t.Errorf("%+v is not both documented and in the code", m)
		}
	}
	if len(there) == 0 {
		t.Error("no metric of the webhook was found")
	}
}

// Label values of fixed sets.
func TestEveryLabelValueIsDocumented(t *testing.T) {
	files := source(t, "proxy")
	steps := []string{}
	captures := []string{}
	each(files, func(c *ast.CallExpr) {
		s, ok := argument(c, 0)
		switch sel, _ := c.Fun.(*ast.SelectorExpr); {
		case !ok || sel == nil:
		case sel.Sel.Name == "step":
			steps = append(steps, s)
		case sel.Sel.Name == "WithLabelValues" && receiver(sel) == "Steps":
			steps = append(steps, s)
		case sel.Sel.Name == "WithLabelValues" && receiver(sel) == "Captures":
			captures = append(captures, s)
		}
	})
	captures = append(captures, constantsOf(files, "notKept")...)
	same(t, "steps", names(table(t, "operations.md", "### Steps")), unique(steps))
	same(t, "captures", firsts(table(t, "operations.md", "### Captures")), unique(captures))
	if all := constants(source(t, "bridge"), "Drop"); !slices.Equal(unique(slices.Clone(bridge.DropReasons)), unique(all)) {
		t.Errorf("DropReasons are %v, want %v", bridge.DropReasons, all)
	}
	same(t, "dropped references", firsts(table(t, "operations.md", "### Dropped references")), bridge.DropReasons)
}

// receiver is the field on which a method is called.
func receiver(sel *ast.SelectorExpr) string {
	if x, ok := sel.X.(*ast.SelectorExpr); ok {
		return x.Sel.Name
	}
	return ""
}

func firsts(rows [][]string) []string {
	var out []string
	for _, r := range rows {
		out = append(out, strings.Trim(r[0], "`"))
	}
	return out
}
