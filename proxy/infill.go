package proxy

import (
	"context"
	"slices"
)

// infillBatch is the server's default batch size (-b), on which it depends how much of each
// part the server uses. We assume that -b, -n and --spm-infill are not set. If they are, the
// server sees other tokens than we do; its counts show that, and nothing is captured.
const infillBatch = 2048

// infill puts a fill-in-the-middle prompt together the way llama-server does
// (format_prompt_infill): extra files, then prefix, prompt and suffix between the
// model's markers, each cut to its share of a batch.
func (t tokenizer) infill(ctx context.Context, auth string, in Infill) ([]int32, error) {
	if t.model == nil || t.model.FIM.Prefix < 0 || t.model.FIM.Suffix < 0 || t.model.FIM.Middle < 0 {
		return nil, errNoInfill
	}
	fim := t.model.FIM
	p := pieces{ctx: ctx, t: t, auth: auth}
	extra := p.extra(in)
	prefix, suffix, prompt := p.of(in.Prefix, false), p.of(in.Suffix, false), p.of(in.Prompt, true)
	if p.err != nil {
		return nil, p.err
	}
	if t.context > 0 {
		extra = extra[len(extra)-min(len(extra), max(0, t.context-infillBatch+2)):]
	}
	prefix = prefix[len(prefix)-min(len(prefix), 3*(infillBatch/4)):]
	suffix = suffix[:min(len(suffix), max(0, infillBatch/4-(2+len(prompt))))]
	var bos []int32
	if t.model.AddBOS {
		bos = []int32{t.model.BOS}
	}
	return slices.Concat(extra, bos, []int32{fim.Prefix}, prefix, prompt, []int32{fim.Suffix}, suffix, []int32{fim.Middle}), nil
}

// pieces tokenizes several texts, with special tokens parsed or not, and remembers the first
// error.
type pieces struct {
	ctx  context.Context
	t    tokenizer
	auth string
	err  error
}

func (p *pieces) of(text string, parse bool) []int32 {
	if p.err != nil || text == "" {
		return nil
	}
	ids, err := p.t.backend.Tokenize(p.ctx, p.auth, text, false, parse)
	p.err = err
	return ids
}

// extra is the repository context in front of the prompt.
func (p *pieces) extra(in Infill) []int32 {
	fim := p.t.model.FIM
	var out []int32
	if fim.Repo >= 0 {
		out = append(append(out, fim.Repo), p.of("myproject\n", false)...)
	}
	for _, f := range in.Extra {
		if fim.Separator >= 0 {
			out = append(append(out, fim.Separator), p.of(f.Name+"\n", false)...)
		} else {
			out = append(out, p.of("\n\n--- snippet ---\n\n", false)...)
		}
		out = append(out, p.of(f.Text, false)...)
	}
	if fim.Separator >= 0 {
		out = append(append(out, fim.Separator), p.of("filename\n", false)...)
	}
	return out
}
