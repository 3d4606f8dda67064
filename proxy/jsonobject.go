package proxy

import (
	"slices"
	"strings"

	"github.com/tidwall/gjson"
)

// object is a JSON object whose members keep their order, as in the backend,
// where templates may print whole objects. Values are raw JSON.
type object []member

type member struct{ key, raw string }

// objectOf takes an object apart. Of members with one name the last counts, as in the
// backend.
func objectOf(r gjson.Result) object {
	var o object
	at := map[string]int{}
	r.ForEach(func(k, v gjson.Result) bool {
		key := k.String()
		if i, again := at[key]; again {
			o[i].raw = v.Raw
			return true
		}
		at[key] = len(o)
		o = append(o, member{key, v.Raw})
		return true
	})
	return o
}

func (o object) get(key string) gjson.Result {
	for _, m := range o {
		if m.key == key {
			return gjson.Parse(m.raw)
		}
	}
	return gjson.Result{}
}

// set replaces a member in its place, or adds it at the end.
func (o *object) set(key, raw string) {
	for i := range *o {
		if (*o)[i].key == key {
			(*o)[i].raw = raw
			return
		}
	}
	*o = append(*o, member{key, raw})
}

func (o *object) del(keys ...string) {
	*o = slices.DeleteFunc(*o, func(m member) bool { return slices.Contains(keys, m.key) })
}

func (o object) json() string {
	size := 2
	for _, m := range o {
		size += len(m.key) + len(m.raw) + len(`"":,`)
	}
	var b strings.Builder
	b.Grow(size)
	b.WriteByte('{')
	for i, m := range o {
		if i > 0 {
			b.WriteByte(',')
		}
		b.WriteString(quote(m.key))
		b.WriteByte(':')
		b.WriteString(m.raw)
	}
	b.WriteByte('}')
	return b.String()
}

// array joins raw values.
func array(raw []string) string { return "[" + strings.Join(raw, ",") + "]" }

func quote(s string) string {
	var b strings.Builder
	b.Grow(len(s) + len(`""`))
	dumpString(&b, s)
	return b.String()
}

// stringOf is the value of a string, and fallback for anything else, as the
// backend's json_value does it.
func stringOf(r gjson.Result, fallback string) string {
	if r.Type != gjson.String {
		return fallback
	}
	return r.String()
}

// maxDump bounds what is dumped: each level is read once more for those around it.
const maxDump = 1 << 20

// dump prints a value as the backend's JSON library does: no spaces, only
// what must be escaped escaped. It gives up on what is longer than maxDump, and on numbers
// that are not plain integers, whose printing it cannot promise to match.
func dump(r gjson.Result) (string, bool) {
	if len(r.Raw) > maxDump {
		return "", false
	}
	var b strings.Builder
	ok := dumpTo(&b, r)
	return b.String(), ok
}

func dumpTo(b *strings.Builder, r gjson.Result) bool {
	switch {
	case r.IsObject():
		o := objectOf(r)
		b.WriteByte('{')
		for i, m := range o {
			if i > 0 {
				b.WriteByte(',')
			}
			dumpString(b, m.key)
			b.WriteByte(':')
			if !dumpTo(b, gjson.Parse(m.raw)) {
				return false
			}
		}
		b.WriteByte('}')
	case r.IsArray():
		b.WriteByte('[')
		first, ok := true, true
		r.ForEach(func(_, v gjson.Result) bool {
			if !first {
				b.WriteByte(',')
			}
			first = false
			ok = dumpTo(b, v)
			return ok
		})
		b.WriteByte(']')
		return ok
	case r.Type == gjson.String:
		dumpString(b, r.String())
	case r.Type == gjson.Number && (strings.Trim(r.Raw, "-0123456789") != "" || r.Raw == "-0" || len(r.Raw) > 18):
		return false
	default:
		b.WriteString(r.Raw)
	}
	return true
}

func dumpString(b *strings.Builder, s string) {
	const hex = "0123456789abcdef"
	b.WriteByte('"')
	for i := range len(s) {
		c := s[i]
		if at := strings.IndexByte("\"\\\b\f\n\r\t", c); at >= 0 {
			b.WriteByte('\\')
			b.WriteByte(`"\bfnrt`[at])
		} else if c < 0x20 {
			b.WriteString(`\u00`)
			b.WriteByte(hex[c>>4])
			b.WriteByte(hex[c&15])
		} else {
			b.WriteByte(c)
		}
	}
	b.WriteByte('"')
}
