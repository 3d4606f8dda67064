package configs

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v4"
)

// decoder fills a Config from a tree of YAML nodes. It exists, rather than the
// YAML package's own decoding, for three things: every error is reported and not
// only the first, each with its line; a route starts out as the defaults; and
// validation afterwards still knows the line of each option.
type decoder struct {
	file     string
	override func(*Config)
	lines    map[string]int // option path to line
	errs     Errors
}

// maxDepth is deeper than any valid file nests; an anchor that contains itself
// would go on for ever.
const maxDepth = 16

var durationType = reflect.TypeFor[time.Duration]()

func (d *decoder) fail(n *yaml.Node, path, format string, args ...any) {
	d.errs = append(d.errs, Error{d.file, n.Line, path, fmt.Sprintf(format, args...)})
}

// decode reads the text into c, which holds the defaults. It returns false when
// the text is no YAML, so that its values say nothing.
func (d *decoder) decode(text []byte, c *Config) bool {
	loader, err := yaml.NewLoader(bytes.NewReader(text))
	if err != nil {
		return d.syntax(err)
	}
	var root, more yaml.Node
	if err := loader.Load(&root); errors.Is(err, io.EOF) {
		return true
	} else if err != nil {
		return d.syntax(err)
	}
	if err := loader.Load(&more); err == nil {
		d.fail(&more, "", "a second document begins here; want one")
	} else if !errors.Is(err, io.EOF) {
		return d.syntax(err)
	}
	n := &root
	if n.Kind == yaml.DocumentNode {
		if len(n.Content) == 0 {
			return true
		}
		n = n.Content[0]
	}
	d.value(n, reflect.ValueOf(c).Elem(), "", "", 0)
	return true
}

func (d *decoder) syntax(err error) bool {
	e := Error{File: d.file, Text: err.Error()}
	var le *yaml.LoadError
	if errors.As(err, &le) {
		e.Line, e.Text = le.Mark.Line, le.Message
	}
	d.errs = append(d.errs, e)
	return false
}

// value decodes one node into v. unit is the field's unit tag.
func (d *decoder) value(n *yaml.Node, v reflect.Value, path, unit string, depth int) {
	for n.Kind == yaml.AliasNode {
		n = n.Alias
	}
	if depth > maxDepth {
		d.fail(n, path, "nested more than %d deep", maxDepth)
		return
	}
	if isNull(n) {
		return // as if it were not there
	}
	if _, ok := d.lines[path]; !ok {
		d.lines[path] = n.Line
	}
	switch v.Kind() {
	case reflect.Struct:
		d.mapping(n, v, path, depth)
	case reflect.Slice:
		d.sequence(n, v, path, depth)
	case reflect.Map:
		d.stringMap(n, v, path)
	default:
		d.scalar(n, v, path, unit)
	}
}

// mapping decodes into the fields of a struct. Of Config, Routes come last: they
// start out as the defaults. A tenant's name goes with its source.
func (d *decoder) mapping(n *yaml.Node, v reflect.Value, path string, depth int) {
	if n.Kind != yaml.MappingNode {
		d.fail(n, path, "want a mapping of options, not %s", kindName(n))
		return
	}
	fields := fieldsOf(v)
	before := v.Interface()
	seen := map[string]bool{}
	type deferred struct {
		node  *yaml.Node
		field field
	}
	var last []deferred
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, val := n.Content[i], n.Content[i+1]
		at := slices.IndexFunc(fields, func(f field) bool { return f.name == key.Value })
		switch {
		case at < 0:
			d.fail(key, path, "unknown option %q; want one of %s", key.Value, fieldNames(fields))
			continue
		case seen[key.Value]:
			d.fail(key, path, "option %q stands here twice", key.Value)
			continue
		}
		seen[key.Value] = true
		f := fields[at]
		d.lines[join(path, f.name)] = key.Line
		if f.value.Type() == reflect.TypeFor[[]Route]() {
			last = append(last, deferred{val, f})
			continue
		}
		d.value(val, f.value, join(path, f.name), f.unit, depth+1)
	}
	for _, l := range last {
		d.override(v.Addr().Interface().(*Config))
		d.routes(l.node, v.Addr().Interface().(*Config), join(path, l.field.name), depth+1)
	}
	if t, ok := v.Addr().Interface().(*Tenant); ok && !seen["name"] && t.Source != before.(Tenant).Source {
		t.Name = ""
		if t.Source == "shared" {
			t.Name = "default"
		}
	}
}

func (d *decoder) routes(n *yaml.Node, c *Config, path string, depth int) {
	for n.Kind == yaml.AliasNode {
		n = n.Alias
	}
	if isNull(n) {
		return
	}
	if n.Kind != yaml.SequenceNode {
		d.fail(n, path, "want a list of routes, not %s", kindName(n))
		return
	}
	c.Routes = make([]Route, len(n.Content))
	for i, item := range n.Content {
		r, at := &c.Routes[i], fmt.Sprintf("%s[%d]", path, i)
		r.Policy = c.Defaults
		r.Critical = slices.Clone(c.Defaults.Critical)
		d.value(item, reflect.ValueOf(r).Elem(), at, "", depth+1)
		if r.Name == "" {
			r.Name = fmt.Sprintf("route-%d", i+1)
		}
		switch last := i == len(n.Content)-1; {
		case isNull(item):
			d.fail(item, at, "is empty; want a route, as {match: {path: /v1/*}, reuse: exact}")
		case r.Match.all() && !last:
			d.fail(item, at, "has no match and fits every request, so that the routes behind it never apply; want a match, or this route last")
		}
	}
}

func (d *decoder) sequence(n *yaml.Node, v reflect.Value, path string, depth int) {
	if n.Kind != yaml.SequenceNode {
		d.fail(n, path, "want a list, not %s", kindName(n))
		return
	}
	v.Set(reflect.MakeSlice(v.Type(), len(n.Content), len(n.Content)))
	for i, item := range n.Content {
		d.value(item, v.Index(i), fmt.Sprintf("%s[%d]", path, i), "", depth+1)
	}
}

func (d *decoder) stringMap(n *yaml.Node, v reflect.Value, path string) {
	if n.Kind != yaml.MappingNode {
		d.fail(n, path, "want a mapping of names to values, not %s", kindName(n))
		return
	}
	m := reflect.MakeMap(v.Type())
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, val := n.Content[i].Value, n.Content[i+1]
		var s string
		d.value(val, reflect.ValueOf(&s).Elem(), join(path, key), "", 0)
		if m.MapIndex(reflect.ValueOf(key)).IsValid() {
			d.fail(val, path, "%q stands here twice", key)
		}
		m.SetMapIndex(reflect.ValueOf(key), reflect.ValueOf(s))
	}
	v.Set(m)
}

func (d *decoder) scalar(n *yaml.Node, v reflect.Value, path, unit string) {
	if n.Kind != yaml.ScalarNode {
		d.fail(n, path, "want one value, not %s", kindName(n))
		return
	}
	text, err := expand(n.Value)
	if err != nil {
		d.fail(n, path, "%v", err)
		return
	}
	switch {
	case v.Type() == durationType:
		t, err := time.ParseDuration(text)
		if err != nil {
			d.fail(n, path, "%q is not a duration; want one like 200ms, 5s or 24h", text)
			return
		}
		v.SetInt(int64(t))
	case unit == "bytes":
		size, err := ParseSize(text)
		if err != nil {
			d.fail(n, path, "%v", err)
			return
		}
		v.SetInt(size)
	case v.Kind() == reflect.String:
		v.SetString(text)
	case v.Kind() == reflect.Float64:
		f, err := strconv.ParseFloat(text, 64)
		if err != nil {
			d.fail(n, path, "%q is not a number", text)
			return
		}
		v.SetFloat(f)
	default:
		i, err := strconv.ParseInt(text, 10, 32)
		if err != nil {
			d.fail(n, path, "%q is not a whole number", text)
			return
		}
		v.SetInt(i)
	}
}

// expand replaces ${NAME} by the environment variable, so that secrets need not
// stand in the file.
func expand(s string) (string, error) {
	var b strings.Builder
	for {
		before, rest, ok := strings.Cut(s, "${")
		b.WriteString(before)
		if !ok {
			return b.String(), nil
		}
		name, after, ok := strings.Cut(rest, "}")
		if !ok {
			return "", errors.New("has ${ without }; want ${NAME}") // not the value: it may be a secret
		}
		value, set := os.LookupEnv(name)
		if !set {
			return "", fmt.Errorf("environment variable %q is not set", name)
		}
		b.WriteString(value)
		s = after
	}
}

// field is one option of a struct.
type field struct {
	name, unit string
	value      reflect.Value
}

func fieldsOf(v reflect.Value) []field {
	var fields []field
	for i := range v.NumField() {
		sf := v.Type().Field(i)
		if sf.Anonymous {
			fields = append(fields, fieldsOf(v.Field(i))...)
			continue
		}
		fields = append(fields, field{sf.Tag.Get("yaml"), sf.Tag.Get("unit"), v.Field(i)})
	}
	return fields
}

func fieldNames(fields []field) string {
	names := make([]string, len(fields))
	for i, f := range fields {
		names[i] = f.name
	}
	return strings.Join(names, ", ")
}

func join(path, name string) string {
	if path == "" {
		return name
	}
	return path + "." + name
}

func isNull(n *yaml.Node) bool { return n.Kind == yaml.ScalarNode && n.Tag == "!!null" }

func kindName(n *yaml.Node) string {
	switch n.Kind {
	case yaml.MappingNode:
		return "a mapping"
	case yaml.SequenceNode:
		return "a list"
	default:
		return fmt.Sprintf("%q", n.Value)
	}
}
