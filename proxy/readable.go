package proxy

import "github.com/tidwall/gjson"

// maxDepth is how deep JSON may be nested. gjson takes a call of itself for every level,
// and a stack that overflows ends the process; bodies in use have a dozen levels.
const maxDepth = 128

// unreadable tells why the body of a generation request cannot be read, or "".
func unreadable(body []byte) string {
	switch {
	case depth(body) > maxDepth:
		return offDeep
	case !gjson.ValidBytes(body):
		return offJSON
	}
	return ""
}

// depth is how deep arrays and objects are nested, as far as body is JSON.
func depth(body []byte) int {
	now, most := 0, 0
	for i := 0; i < len(body); i++ {
		switch body[i] {
		case '[', '{':
			now++
			most = max(most, now)
		case ']', '}':
			now--
		case '"':
			i = endOfString(body, i)
		}
	}
	return most
}

// endOfString is where the string ends that begins at i.
func endOfString(body []byte, i int) int {
	for i++; i < len(body) && body[i] != '"'; i++ {
		if body[i] == '\\' {
			i++
		}
	}
	return i
}

// givenTwice reports whether the object has two members of one name. What reads it may
// take the first, and the backend takes the last.
func givenTwice(body gjson.Result) bool {
	seen := map[string]bool{}
	twice := false
	body.ForEach(func(k, _ gjson.Result) bool {
		twice = seen[k.String()]
		seen[k.String()] = true
		return !twice
	})
	return twice
}
