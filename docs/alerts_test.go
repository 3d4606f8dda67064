package docs

import (
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/VictoriaMetrics/metricsql"
	"go.yaml.in/yaml/v4"

	"github.com/semsharekv/semsharekv/proxy"
)

// rule is an alert of the manual.
type rule struct{ Alert, Expr string }

func alerts(t *testing.T) []rule {
	t.Helper()
	var out []rule
	for _, block := range blocks(read(t, "operations.md")) {
		var file struct {
			Spec struct{ Groups []struct{ Rules []rule } }
		}
		if err := yaml.Unmarshal([]byte(block), &file); err != nil {
			t.Fatal(err)
		}
		for _, g := range file.Spec.Groups {
			out = append(out, g.Rules...)
		}
	}
	if len(out) == 0 {
		t.Fatal("there are no alerts")
	}
	return out
}

// parsed are the alerts' expressions.
func parsed(t *testing.T) map[string]metricsql.Expr {
	t.Helper()
	out := map[string]metricsql.Expr{}
	for _, r := range alerts(t) {
		e, err := metricsql.Parse(r.Expr)
		if err != nil {
			t.Fatalf("%s: %v", r.Alert, err)
		}
		out[r.Alert] = e
	}
	return out
}

// labelsOf are the labels that the manual gives each series.
func labelsOf(t *testing.T) map[string][]string {
	t.Helper()
	out := map[string][]string{}
	for _, m := range append(documented(t, ofTheSidecar), documented(t, ofTheWebhook)...) {
		var labels []string
		if m.labels != "" {
			labels = strings.Split(m.labels, ",")
		}
		out[m.name] = labels
		if m.kind == "histogram" {
			out[m.name+"_bucket"] = append(slices.Clone(labels), "le")
		}
	}
	return out
}

// named calls f with each series that an expression names, and its filters.
func named(e metricsql.Expr, f func(name string, filters []metricsql.LabelFilter)) {
	metricsql.VisitAll(e, func(e metricsql.Expr) {
		if m, ok := e.(*metricsql.MetricExpr); ok {
			for _, filters := range m.LabelFilterss {
				f(filters[0].Value, filters[1:])
			}
		}
	})
}

func TestAlertsNameMetricsThatExist(t *testing.T) {
	known := labelsOf(t)
	for alert, e := range parsed(t) {
		names := 0
		named(e, func(name string, filters []metricsql.LabelFilter) {
			names++
			labels, ok := known[name]
			if !ok {
				t.Errorf("%s: there is no metric %s", alert, name)
			}
			for _, f := range filters {
				if !slices.Contains(labels, f.Label) {
					t.Errorf("%s: %s has no label %q", alert, name, f.Label)
				}
			}
		})
		if names == 0 {
			t.Errorf("%s names no metric", alert)
		}
	}
}

// Series that are compared have the same labels: else none has a counterpart, and nothing
// is ever reported.
func TestAlertsCompareSeriesThatMatch(t *testing.T) {
	for alert, e := range parsed(t) {
		m := matching{t, alert, labelsOf(t)}
		m.labels(e)
	}
}

// matching finds out the labels of what expressions evaluate to.
type matching struct {
	t     *testing.T
	alert string
	known map[string][]string
}

// target are the labels that Prometheus adds to what it reads from one address.
var target = []string{"instance", "job"}

// labels are those of an expression, sorted; a number has none, and vector is false.
func (m *matching) labels(e metricsql.Expr) (labels []string, vector bool) {
	m.t.Helper()
	switch e := e.(type) {
	case *metricsql.NumberExpr:
		return nil, false
	case *metricsql.MetricExpr:
		return unique(slices.Concat(m.known[e.LabelFilterss[0][0].Value], target)), true
	case *metricsql.RollupExpr:
		return m.labels(e.Expr)
	case *metricsql.AggrFuncExpr:
		return m.grouped(e), true
	case *metricsql.FuncExpr:
		return m.result(e)
	case *metricsql.BinaryOpExpr:
		return m.compared(e)
	}
	m.t.Fatalf("%s: %T is not known here", m.alert, e)
	return nil, false
}

func (m *matching) grouped(e *metricsql.AggrFuncExpr) []string {
	m.t.Helper()
	all, _ := m.labels(e.Args[0])
	by := strings.ToLower(e.Modifier.Op) != "without" // neither is by nothing
	return slices.DeleteFunc(all, func(l string) bool { return slices.Contains(e.Modifier.Args, l) != by })
}

func (m *matching) result(e *metricsql.FuncExpr) ([]string, bool) {
	m.t.Helper()
	switch e.Name {
	case "time":
		return nil, false
	case "rate", "increase":
		return m.labels(e.Args[0])
	case "histogram_quantile":
		all, _ := m.labels(e.Args[1])
		return slices.DeleteFunc(all, func(l string) bool { return l == "le" }), true
	}
	m.t.Fatalf("%s: %s is not known here", m.alert, e.Name)
	return nil, false
}

func (m *matching) compared(e *metricsql.BinaryOpExpr) ([]string, bool) {
	m.t.Helper()
	left, isVector := m.labels(e.Left)
	right, isToo := m.labels(e.Right)
	switch {
	case !isVector:
		return right, isToo
	case isToo && !slices.Equal(left, right):
		m.t.Errorf("%s: series with the labels %v are held against series with %v", m.alert, left, right)
	}
	return left, true
}

// The increase of a series that begins at 1 is 0: all are there from the start.
func TestWhatAlertsCountIsThereFromTheStart(t *testing.T) {
	counters := map[string]bool{}
	for _, m := range documented(t, ofTheSidecar) {
		counters[m.name] = m.kind == "counter"
	}
	at := page(t, proxy.NewMetrics())
	for alert, e := range parsed(t) {
		named(e, func(name string, filters []metricsql.LabelFilter) {
			if counters[name] && !slices.ContainsFunc(strings.Split(at, "\n"), func(line string) bool { return fits(line, name, filters) }) {
				t.Errorf("%s: %s has no series at the start that fits %v", alert, name, filters)
			}
		})
	}
}

// fits reports whether a line of a page of metrics is a series that the filters choose.
func fits(line, name string, filters []metricsql.LabelFilter) bool {
	series, ok := strings.CutPrefix(line, name)
	if !ok || !strings.HasPrefix(series, "{") && !strings.HasPrefix(series, " ") {
		return false
	}
	for _, f := range filters {
		value := f.Value
		if !f.IsRegexp {
			value = regexp.QuoteMeta(value)
		}
		if regexp.MustCompile(f.Label+`="(`+value+`)"`).MatchString(series) == f.IsNegative {
			return false
		}
	}
	return true
}
