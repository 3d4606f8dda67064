package eval

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"

	"github.com/tidwall/gjson"
)

// Pair is one line of a pairs file. Reference and Target are the texts of a
// user's message; Answer, where there is one, is the text that the shared
// answer is scored against. Between are further messages that the sidecar sees after the
// reference, in order: where they are shared, store.max_generation decides whether they may
// serve the target too.
type Pair struct {
	ID        string   `json:"id"`
	Group     string   `json:"group"`
	Reference string   `json:"reference"`
	Between   []string `json:"between,omitempty"`
	Target    string   `json:"target"`
	Answer    string   `json:"answer"`
}

// unrelated is the group of pairs that must stay cold.
const unrelated = "unrelated"

// maxLine bounds one line of a pairs file, in bytes.
const maxLine = 64 << 20

// ReadPairs reads a JSONL file of pairs. The first faults are reported
// at once, each with its line; blank lines are skipped.
func ReadPairs(path string) ([]Pair, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("cannot read the pairs: %w", err)
	}
	defer f.Close()
	return readPairs(path, f)
}

func readPairs(name string, r io.Reader) ([]Pair, error) {
	var (
		pairs  []Pair
		faults []error
		first  = map[string]int{} // line of each id
	)
	lines := bufio.NewScanner(r)
	lines.Buffer(make([]byte, 64<<10), maxLine)
	n := 0
	for lines.Scan() {
		n++
		line := bytes.TrimSpace(lines.Bytes())
		if len(line) == 0 {
			continue
		}
		p, err := parsePair(line)
		if err == nil && first[p.ID] != 0 {
			err = fmt.Errorf("id %q was used in line %d already; ids must differ", p.ID, first[p.ID])
		}
		if err != nil {
			faults = append(faults, fmt.Errorf("%s:%d: %w", name, n, err))
			continue
		}
		first[p.ID] = n
		pairs = append(pairs, p)
	}
	if err := lines.Err(); err != nil {
		faults = append(faults, fmt.Errorf("%s:%d: %w (a line may have up to %d bytes)", name, n+1, err, maxLine))
	}
	if len(faults) == 0 && len(pairs) == 0 {
		return nil, fmt.Errorf("%s holds no pairs", name)
	}
	return pairs, errors.Join(firstFaults(faults)...)
}

// maxFaults bounds what is said of a file that holds no pairs at all.
const maxFaults = 10

// firstFaults are the first faults, and how many more there are.
func firstFaults(faults []error) []error {
	more := len(faults) - maxFaults
	if more <= 0 {
		return faults
	}
	return append(faults[:maxFaults], fmt.Errorf("and %d more", more))
}

func parsePair(line []byte) (Pair, error) {
	var p Pair
	var object map[string]any
	if err := json.Unmarshal(line, &object); errors.As(err, new(*json.UnmarshalTypeError)) {
		return p, errors.New(`not a pair: want an object, as {"id": "…", "group": "…", "reference": "…", "target": "…"}`)
	} else if err != nil {
		return p, fmt.Errorf("not a pair: %w", err)
	}
	if key := repeated(line); key != "" {
		return p, fmt.Errorf("field %q is given twice", key)
	}
	fields := map[string]*string{"id": &p.ID, "group": &p.Group, "reference": &p.Reference, "target": &p.Target, "answer": &p.Answer}
	for _, name := range slices.Sorted(maps.Keys(object)) {
		field, text := fields[name], object[name]
		if name == "between" {
			if p.Between = texts(text); p.Between == nil {
				return p, fmt.Errorf("field %q is %v; want a list of texts", name, text)
			}
			continue
		}
		if field == nil {
			return p, fmt.Errorf("field %q is not known; want id, group, reference, target and, where there are such, between and answer", name)
		}
		var ok bool
		if *field, ok = text.(string); !ok {
			return p, fmt.Errorf("field %q is %v; want a text", name, text)
		}
	}
	for _, name := range []string{"id", "group", "reference", "target"} {
		if *fields[name] == "" {
			return p, fmt.Errorf("field %q is missing or empty", name)
		}
	}
	return p, nil
}

// repeated is a key that an object has twice, of which decoders take the last; "" where it
// has none.
func repeated(object []byte) (twice string) {
	seen := map[string]bool{}
	gjson.ParseBytes(object).ForEach(func(key, _ gjson.Result) bool {
		if seen[key.String()] {
			twice = key.String()
		}
		seen[key.String()] = true
		return twice == ""
	})
	return twice
}

// texts are those of a list of texts, one and more, none of them empty; nil for anything else.
func texts(list any) []string {
	values, _ := list.([]any)
	var out []string
	for _, v := range values {
		text, _ := v.(string)
		if text == "" {
			return nil
		}
		out = append(out, text)
	}
	return out
}

// known are the messages that the sidecar sees before the target.
func (p Pair) known() []string { return append([]string{p.Reference}, p.Between...) }
