package proxy

import "github.com/semsharekv/semsharekv/configs"

// leastBytes is the fewest bytes that a token is reckoned to stand for, on average over a
// prompt. English has about four, so that only clear cases count as hopeless.
const leastBytes = 2

// hopeless reports whether sharing cannot pay for a prompt of this length: where the
// backend is so fast that it computes the prompt sooner than anything could be looked up
// and put into a slot, not even the tokens are asked for.
//
// Such a request is left to the backend, which finds by itself what a slot holds of it. It is
// not hopeless if the backend could choose wrongly: if tenants may differ, or if the book
// knows of a prompt of this tenant's in a slot, which the request could go on with, or the
// backend overwrite.
func (d *decision) hopeless() bool {
	pol := &d.req.Policy
	if d.trial != nil || pol.Reuse != configs.ReuseFuzzy || d.req.Adapters != "" || pol.Tenant.Source != "shared" || d.book.holdsAny(d.req.Tenant) {
		return false
	}
	n := d.req.Prompt.tokensOf(leastBytes)
	cold := d.lv.costs.model().Prefill(0, n)
	return cold > 0 && d.lv.costs.least(n, d.agent()) > gain*cold
}

// tokensOf is how many tokens the prompt has if each of its text stands for that many bytes;
// exact where it has no text.
func (p *Prompt) tokensOf(bytes int) int {
	text, tokens := len(p.Text)+len(p.Chat), 0
	for _, part := range p.Parts {
		text += len(part.Text)
		tokens += len(part.Tokens)
	}
	text += len(p.Infill.Prefix) + len(p.Infill.Suffix) + len(p.Infill.Prompt)
	for _, f := range p.Infill.Extra {
		text += len(f.Text)
	}
	return tokens + text/bytes
}
