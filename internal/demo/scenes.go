package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"time"
)

// pair is a line of the pairs file.
type pair struct{ ID, Reference, Target, Answer string }

func readPairs(name string) (map[string]pair, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, fmt.Errorf("cannot read the demo's texts: %w", err)
	}
	defer f.Close()
	pairs := map[string]pair{}
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, 4<<20)
	for lines.Scan() {
		var p pair
		if err := json.Unmarshal(lines.Bytes(), &p); err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		pairs[p.ID] = p
	}
	return pairs, lines.Err()
}

// want is what must become of a scene's target.
type want uint8

const (
	wantShared want = iota // answered from a similar prompt's KV, and sooner
	wantRight              // the fact is the target's own, shared or not
	wantCold               // nothing is shared
)

// scene is one thing that the demo shows. An empty reference means that the
// ones before are all there is to share with.
type scene struct {
	title, tenant     string
	reference, target string
	// own and other are the fact as the target and as the reference state it.
	own, other string
	want       want
}

func scenes(pairs map[string]pair) ([]scene, error) {
	for _, id := range []string{"edited-01", "template-02", "reordered-01", "number-01", "unrelated-01"} {
		if pairs[id].Target == "" {
			return nil, fmt.Errorf("%s has no pair %s", pairsFile, id)
		}
	}
	edited, number := pairs["edited-01"], pairs["number-01"]
	// Only the question differs from what tenant acme asked before, so that it
	// is the tenant alone that keeps this one cold.
	return []scene{
		{title: "a document, edited", tenant: "acme", reference: edited.Reference, target: edited.Target, want: wantShared},
		{title: "a form, filled anew", tenant: "acme", reference: pairs["template-02"].Reference, target: pairs["template-02"].Target, want: wantShared},
		{title: "documents, reordered", tenant: "acme", reference: pairs["reordered-01"].Reference, target: pairs["reordered-01"].Target, want: wantShared},
		{title: "a number changed, asked for", tenant: "acme", reference: number.Reference, target: number.Target, own: number.Answer, other: factOf(number), want: wantRight},
		{title: "the edited one, other tenant", tenant: "globex", target: edited.Target, want: wantCold},
		{title: "an unrelated document", tenant: "acme", target: pairs["unrelated-01"].Target, want: wantCold},
	}, nil
}

// factOf returns what stands in the reference where the target has the answer.
func factOf(p pair) string {
	at := strings.Index(p.Target, p.Answer)
	if at < 0 || at+len(p.Answer) > len(p.Reference) {
		return ""
	}
	return p.Reference[at : at+len(p.Answer)]
}

func prompts(scenes []scene) int {
	n := 2 * len(scenes)
	for _, s := range scenes {
		if s.reference != "" {
			n++
		}
	}
	return n
}

// result is what became of a scene.
type result struct {
	scene        *scene
	cold, shared reply
	failures     []string
}

// play sends the reference and the target through the sidecar, then the target
// to the backend with its cache forbidden.
func (s *scene) play(ctx context.Context, sidecar, backend string) (result, error) {
	r := result{scene: s}
	if s.reference != "" {
		if _, err := step(ctx, "a similar prompt, through the sidecar", request{url: sidecar, tenant: s.tenant, prompt: s.reference}); err != nil {
			return r, err
		}
		// The sidecar saves the reference after the answer; a user's next prompt
		// would not come sooner either.
		time.Sleep(2 * time.Second)
	}
	var err error
	if r.shared, err = step(ctx, "the prompt, through the sidecar", request{url: sidecar, tenant: s.tenant, prompt: s.target}); err != nil {
		return r, err
	}
	if r.cold, err = step(ctx, "the same prompt, to the backend alone", request{url: backend, prompt: s.target, cold: true}); err != nil {
		return r, err
	}
	r.judge()
	return r, nil
}

func (r *result) judge() {
	fail := func(format string, args ...any) { r.failures = append(r.failures, fmt.Sprintf(format, args...)) }
	state, _, _ := strings.Cut(r.shared.did, ";")
	switch r.scene.want {
	case wantShared:
		if state != "shared" && (state != "exact" || fewWords(r.shared.did)) {
			fail("it must be shared, but was: %s", r.shared.did)
		} else if r.shared.ttft >= r.cold.ttft {
			fail("the first token came after %v, cold after %v", r.shared.ttft, r.cold.ttft)
		}
	case wantCold:
		if state != "cold" && !fewWords(r.shared.did) {
			fail("it must stay cold, but was: %s", r.shared.did)
		}
	case wantRight:
		if strings.Contains(r.shared.text, r.scene.other) && !strings.Contains(r.cold.text, r.scene.other) {
			fail("the answer states the other prompt's %q", r.scene.other)
		}
		if strings.Contains(r.cold.text, r.scene.own) && !strings.Contains(r.shared.text, r.scene.own) {
			fail("the answer lacks %q, which the cold one states", r.scene.own)
		}
	}
}

// fewWords reports whether all that was found is the beginning that every
// prompt has, of the chat template and the instruction.
func fewWords(did string) bool {
	var reused float64
	_, err := fmt.Sscanf(did, "exact; reused=%f", &reused)
	return err == nil && reused < 0.05
}
