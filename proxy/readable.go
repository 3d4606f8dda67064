package proxy

import (
	"bytes"
	"strings"
	"unicode/utf8"

	"github.com/tidwall/gjson"
)

// maxDepth is how deep JSON may be nested. gjson takes a call of itself for every level,
// and a stack that overflows ends the process; bodies in use have a dozen levels.
const maxDepth = 128

// What reading a body takes grows with the number of its values, a hundred bytes and more for
// each. maxMembers is how many its top level may have, which is taken apart for each request;
// maxValues is how many a body to be shared may have in all. The longest prompts in token ids
// have some hundred thousands.
const (
	maxMembers = 1000
	maxValues  = 1 << 20
)

// bom is a byte order mark in UTF-8, of which llama-server skips one before a body's JSON.
const bom = "\ufeff"

func withoutBOM(body []byte) []byte { return bytes.TrimPrefix(body, []byte(bom)) }

// unreadable tells why the body of a generation request cannot be read, or "".
func unreadable(body []byte) string {
	depth, members := shape(body)
	switch {
	case depth > maxDepth:
		return offDeep
	case !utf8.Valid(body) || !gjson.ValidBytes(body): // JSON is UTF-8, and the backend refuses what is not
		return offJSON
	case members > maxMembers:
		return offMembers
	}
	return ""
}

// shape is how deep arrays and objects are nested, and how many members the outermost one
// has, as far as body is JSON.
func shape(body []byte) (depth, members int) {
	now := 0
	members = 1
	for i := 0; i < len(body); i++ {
		switch body[i] {
		case '[', '{':
			now++
			depth = max(depth, now)
		case ']', '}':
			now--
		case ',':
			if now == 1 {
				members++
			}
		case '"':
			i = endOfString(body, i)
		}
	}
	return depth, members
}

// values is how many values a body has, or one less for each empty array and object.
func values(body string) int {
	n := 1
	for i := 0; i < len(body); i++ {
		switch body[i] {
		case ',':
			n++
		case '"':
			i = endOfString(body, i)
		}
	}
	return n
}

// endOfString is where the string ends that begins at i.
func endOfString[T string | []byte](body T, i int) int {
	for i++; i < len(body) && body[i] != '"'; i++ {
		if body[i] == '\\' {
			i++
		}
	}
	return i
}

// givenTwice reports whether any object in the body has two members of one name. What reads
// it may take the first, and the backend takes the last.
func givenTwice(body string) bool {
	type member struct {
		object int // the how many-th array or object it stands in
		name   string
	}
	seen := map[member]bool{}
	var within []int
	n := 0
	for i := 0; i < len(body); i++ {
		switch body[i] {
		case '[', '{':
			n++
			within = append(within, n)
		case ']', '}':
			within = within[:len(within)-1]
		case '"':
			end := endOfString(body, i)
			if strings.HasPrefix(strings.TrimLeft(body[end+1:], " \t\r\n"), ":") {
				m := member{within[len(within)-1], gjson.Parse(body[i : end+1]).String()}
				if seen[m] {
					return true
				}
				seen[m] = true
			}
			i = end
		}
	}
	return false
}
