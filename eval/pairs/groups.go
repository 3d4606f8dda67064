package main

import (
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"strings"
)

// maker makes the pairs of one file.
type maker struct {
	lib   *library
	tok   *tokenizer
	words *wordNet
	set   string
}

const perGroup = 8

// all makes every group; the order of the pairs is the order of the report.
func (m *maker) all() ([]Pair, error) {
	var pairs []Pair
	for _, group := range []func() ([]Pair, error){m.edited, m.template, m.reordered, m.sought, m.opinion, m.retrieved, m.releases, m.synonyms, m.number, m.unrelated} {
		p, err := group()
		if err != nil {
			return nil, err
		}
		pairs = append(pairs, p...)
	}
	return pairs, nil
}

// id names a pair; tuning pairs cannot be mistaken for reported ones.
func (m *maker) id(group string, i int) string {
	if m.set == "report" {
		return fmt.Sprintf("%s-%02d", group, i+1)
	}
	return fmt.Sprintf("%s-%s-%02d", m.set, group, i+1)
}

func random(id string) *rand.Rand {
	h := fnv.New64a()
	h.Write([]byte(id))
	return rand.New(rand.NewPCG(h.Sum64(), 1))
}

// prose returns about want tokens of the i-th text; round after round starts
// further into it.
func (m *maker) prose(i, want int) []string {
	n := len(m.lib.prose)
	t := &m.lib.prose[i%n]
	from := 0.02 + 0.31*float64(i/n)
	return t.excerpt(from-float64(int(from)), want)
}

func join(paragraphs []string) string { return strings.Join(paragraphs, "\n\n") }

// asked puts a document and a question into one prompt.
func asked(doc, question string) string {
	return "Read the following document carefully, then answer the question at its end.\n\n" +
		doc + "\n\nQuestion: " + question
}

const summarise = "What are the main points of this document? Answer in one short paragraph."

// lengths of the prompts of a group, in tokens.
func length(i int) int { return 2200 + 330*i }

// edited: a document, and the same document edited in one to eight places:
// sentences exchanged, paragraphs inserted, deleted and moved.
func (m *maker) edited() ([]Pair, error) {
	var pairs []Pair
	for i := range perGroup {
		id := m.id("edited", i)
		r := random(id)
		doc := m.prose(i, length(i))
		other := m.prose(i+3, 1200)
		target := doc
		for k := range i + 1 {
			target = edit(target, other, (k+i)%4, r)
		}
		pairs = append(pairs, Pair{ID: id, Group: "edited",
			Reference: asked(join(doc), summarise), Target: asked(join(target), summarise)})
	}
	return pairs, nil
}

// edit makes one edit of the kind at a random place. The slice given is kept.
func edit(doc, other []string, kind int, r *rand.Rand) []string {
	at := 1 + r.IntN(len(doc)-2)
	out := append([]string(nil), doc...)
	switch kind {
	case 0:
		out[at] = changeSentence(out[at], other[r.IntN(len(other))])
	case 1:
		out = append(out[:at], append([]string{other[r.IntN(len(other))]}, out[at:]...)...)
	case 2:
		out = append(out[:at], out[at+1:]...)
	case 3:
		moved := out[at]
		out = append(out[:at], out[at+1:]...)
		to := 1 + r.IntN(len(out)-1)
		out = append(out[:to], append([]string{moved}, out[to:]...)...)
	}
	return out
}

// changeSentence replaces the paragraph's last sentence by the other's first.
func changeSentence(paragraph, other string) string {
	sentences := strings.SplitAfter(paragraph, ". ")
	theirs, _, _ := strings.Cut(other, ". ")
	sentences[len(sentences)-1] = strings.TrimSuffix(theirs, ".") + "."
	return strings.Join(sentences, "")
}

// reordered: three to five retrieved documents in another order, with the same
// question about all of them.
func (m *maker) reordered() ([]Pair, error) {
	var pairs []Pair
	for i := range perGroup {
		pairs = append(pairs, m.inAnotherOrder("reordered", i, i, "Which topics do these documents treat? Answer in one short paragraph.", ""))
	}
	return pairs, nil
}

// sought: other parts of the documents in another order; one of them has a fact that
// the question asks for. The fact is the same in both prompts.
func (m *maker) sought() ([]Pair, error) {
	var pairs []Pair
	for i := range perGroup {
		f := facts[i]
		p := m.inAnotherOrder("sought", i, i+perGroup, f.question, f.sentence)
		p.Answer = f.reference
		pairs = append(pairs, p)
	}
	return pairs, nil
}

// openQuestions want something of the documents as a whole, or of one of them.
var openQuestions = [perGroup]string{
	"Which of these documents should a newcomer read first, and why?",
	"What is the most important rule that these documents state?",
	"Who are these documents written for?",
	"Write a title for a page that collects these documents.",
	"What do these documents have in common?",
	"Name one thing that a reader must not do, according to these documents.",
	"Which commands or tools do these documents mention?",
	"Summarise the first of these documents in one sentence.",
}

// opinion: still other parts of the documents in another order, each with another
// open question.
func (m *maker) opinion() ([]Pair, error) {
	var pairs []Pair
	for i, question := range openQuestions {
		pairs = append(pairs, m.inAnotherOrder("opinion", i, i+2*perGroup, question, ""))
	}
	return pairs, nil
}

// inAnotherOrder is the i-th pair of a group: three to five documents, the first of
// them the from-th text of the library, with a question, and the same in another
// order. A fact, where there is one, stands in the middle of one of the documents.
func (m *maker) inAnotherOrder(group string, i, from int, question, fact string) Pair {
	id := m.id(group, i)
	r := random(id)
	n := 3 + i%3
	docs := make([]string, n)
	for k := range docs {
		paragraphs := m.prose(from+k*3, length(i)/n)
		if fact != "" && k == i%n {
			paragraphs[len(paragraphs)/2] += "\n\n" + fact
		}
		docs[k] = fmt.Sprintf("<document title=%q>\n%s\n</document>",
			m.lib.prose[(from+k*3)%len(m.lib.prose)].name, join(paragraphs))
	}
	order := r.Perm(n)
	if inPlace(order) {
		order = append(order[1:], order[0])
	}
	moved := make([]string, n)
	for k, o := range order {
		moved[k] = docs[o]
	}
	return Pair{ID: id, Group: group,
		Reference: asked(strings.Join(docs, "\n\n"), question), Target: asked(strings.Join(moved, "\n\n"), question)}
}

func inPlace(order []int) bool {
	for i, o := range order {
		if i != o {
			return false
		}
	}
	return true
}

// retrieved: what a search finds for two questions about the same: 7 to 14 passages of
// 200 to 400 tokens in another order, one of them another.
func (m *maker) retrieved() ([]Pair, error) {
	var pairs []Pair
	for i := range perGroup {
		id := m.id("retrieved", i)
		r := random(id)
		found := make([]string, 8+i)
		for k := range found {
			text := (i + k*3) % len(m.lib.prose)
			at := text + len(m.lib.prose)*(k/len(m.lib.prose)) // further into a text each time
			found[k] = fmt.Sprintf("Source: %s\n%s", m.lib.prose[text].name, join(m.prose(at, 200+r.IntN(201))))
		}
		first, again := found[:len(found)-1], append([]string(nil), found[1:]...)
		r.Shuffle(len(again), func(a, b int) { again[a], again[b] = again[b], again[a] })
		pairs = append(pairs, Pair{ID: id, Group: "retrieved",
			Reference: grounded(first, "Which of these passages should a newcomer read first, and why?"),
			Target:    grounded(again, "What do these passages have in common?")})
	}
	return pairs, nil
}

// grounded asks for an answer from numbered passages, as retrieval does.
func grounded(passages []string, question string) string {
	var b strings.Builder
	b.WriteString("Answer the question at the end from the passages below, in one short paragraph.\n\n")
	for i, p := range passages {
		fmt.Fprintf(&b, "[%d] %s\n\n", i+1, p)
	}
	return b.String() + "Question: " + question
}

// releases: one document in two releases of the software it belongs to.
func (m *maker) releases() ([]Pair, error) {
	var pairs []Pair
	for i, two := range m.lib.releases {
		// From the start, so that both releases show the same part, changes and all.
		old, new := two[0].head(4300), two[1].head(4300)
		if two[0].size() > 2*4300 { // a long one: where it differs most
			old, new = mostChanged(two, 3800)
		}
		if join(old) == join(new) {
			return nil, fmt.Errorf("releases: %s: both releases are the same there", m.lib.names[i])
		}
		pairs = append(pairs, Pair{ID: m.id("releases", i), Group: "releases",
			Reference: asked(join(old), summarise), Target: asked(join(new), summarise)})
	}
	return pairs, nil
}

func (t *text) size() (n int) {
	for _, k := range t.tokens {
		n += k
	}
	return n
}

// head returns the first paragraphs, up to the number of tokens.
func (t *text) head(want int) []string { return t.window(0, want) }

func (t *text) window(start, want int) []string {
	end, have := start, 0
	for end < len(t.paragraphs) && have+t.tokens[end] <= want {
		have += t.tokens[end]
		end++
	}
	return t.paragraphs[start:end]
}

// mostChanged picks the window of a long document, starting at a paragraph that
// both releases have, in which the most paragraphs of the new release are new.
func mostChanged(two [2]text, want int) (old, new []string) {
	at := map[string]int{}
	for i, p := range two[0].paragraphs {
		at[p] = i
	}
	most := -1
	for i, p := range two[1].paragraphs {
		j, same := at[p]
		if !same || i%5 != 0 {
			continue
		}
		o, n := two[0].window(j, want), two[1].window(i, want)
		changed := 0
		for _, q := range n {
			if _, ok := at[q]; !ok {
				changed++
			}
		}
		if long := len(n)*3 > len(two[1].paragraphs)/12; changed > most && long && i+len(n) < len(two[1].paragraphs) {
			most, old, new = changed, o, n
		}
	}
	return old, new
}

// inOrderShares are what synonym rewriting aims at: the share of the target's
// tokens that are the reference's, in order.
var inOrderShares = []float64{.97, .95, .93, .90, .87, .84, .80, .75}

// synonyms: a document, and the same with words replaced by WordNet synonyms.
func (m *maker) synonyms() ([]Pair, error) {
	var pairs []Pair
	for i, share := range inOrderShares {
		id := m.id("synonyms", i)
		doc, rewritten, err := m.rewritten(id, i, share)
		if err != nil {
			return nil, err
		}
		pairs = append(pairs, Pair{ID: id, Group: "synonyms",
			Reference: asked(doc, summarise), Target: asked(rewritten, summarise)})
	}
	return pairs, nil
}

// rewritten returns the first text from the one after the i-th on that has the words to
// come down to the share, and what it comes down to. One with much code in it has not.
func (m *maker) rewritten(id string, i int, share float64) (doc, target string, err error) {
	for k := range m.lib.prose {
		doc = join(m.prose(i+1+k, 2300+220*i))
		target, reached, err := m.rewriteTo(id, doc, share)
		if err != nil || reached <= share+0.01 {
			return doc, target, err
		}
	}
	return "", "", fmt.Errorf("%s: no text has so many words with synonyms that only %g of its tokens are left in order", id, share)
}

// rewriteTo finds the rate of replacement that leaves the wanted share, and returns
// which share it left.
func (m *maker) rewriteTo(id, doc string, share float64) (best string, reached float64, err error) {
	ref, err := m.tok.ids(doc)
	if err != nil {
		return "", 0, err
	}
	low, high := 0.0, 1.0
	for range 7 {
		rate := (low + high) / 2
		best = m.words.rewrite(doc, rate, random(id))
		target, err := m.tok.ids(best)
		if err != nil {
			return "", 0, err
		}
		if reached = inOrder(ref, target); reached > share {
			low = rate
		} else {
			high = rate
		}
	}
	return best, reached, nil
}

// fact is a statement with one value that differs between the two prompts.
type fact struct{ sentence, question, reference, target string }

var facts = []fact{
	{"The review of this section was carried out on behalf of the committee by Ingrid Halvorsen.", "Who carried out the review of this section on behalf of the committee?", "Ingrid Halvorsen", "Tobias Lindqvist"},
	{"The help desk for questions about this document can be reached at extension 4417.", "At which extension can the help desk for questions about this document be reached?", "4417", "5823"},
	{"The archive described here may hold at most 640 gigabytes before it must be split.", "How many gigabytes may the archive hold at most before it must be split?", "640", "275"},
	{"The next meeting of the working group takes place in the city of Rotterdam.", "In which city does the next meeting of the working group take place?", "Rotterdam", "Lisbon"},
	{"Every change has to be announced 14 days before it takes effect.", "How many days before it takes effect does every change have to be announced?", "14", "45"},
	{"The registration number of this document is KX-20981.", "What is the registration number of this document?", "KX-20981", "KX-73146"},
	{"The fee for an urgent request is 350 euros.", "How many euros is the fee for an urgent request?", "350", "920"},
	{"The backup of the main server starts every night at 02:40.", "At which time does the backup of the main server start every night?", "02:40", "23:15"},
	{"The project's treasurer is Amara Okafor, who signs all invoices.", "Who is the project's treasurer?", "Amara Okafor", "Pavel Novotny"},
	{"The pilot was run with 128 participants from nine countries.", "With how many participants was the pilot run?", "128", "306"},
}

// number: a number or a name in the middle of the document differs, and the
// question asks for it. The answer must come from the target.
func (m *maker) number() ([]Pair, error) {
	var pairs []Pair
	for i, f := range facts {
		id := m.id("number", i)
		doc := m.prose(i+2, 2150+240*i)
		at := len(doc) * (30 + 5*i) / 100
		with := func(sentence string) string {
			out := append([]string(nil), doc...)
			out[at] += "\n\n" + sentence
			return asked(join(out), f.question)
		}
		target := strings.Replace(f.sentence, f.reference, f.target, 1)
		pairs = append(pairs, Pair{ID: id, Group: "number", Reference: with(f.sentence), Target: with(target), Answer: f.target})
	}
	return pairs, nil
}

// unrelated: two documents that have nothing to do with one another. They must
// stay cold.
func (m *maker) unrelated() ([]Pair, error) {
	var pairs []Pair
	n := len(m.lib.prose)
	for i := range perGroup {
		pairs = append(pairs, Pair{ID: m.id("unrelated", i), Group: "unrelated",
			Reference: asked(join(m.prose(i, length(i))), summarise),
			Target:    asked(join(m.prose(i+n/2+n, length(perGroup-1-i))), "Who is this document written for, and what does it ask of them?")})
	}
	return pairs, nil
}
