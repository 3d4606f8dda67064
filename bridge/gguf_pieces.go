package bridge

import (
	"strconv"
	"strings"
)

// Token types of GGUF (llama_token_type).
const (
	tokenControl     = 3
	tokenUserDefined = 4
	tokenByte        = 6
)

// pieces are the texts of a vocabulary as the file holds them.
type pieces struct {
	kind string // tokenizer.ggml.model: gpt2, llama, ...
	text []string
	typ  []uint8
}

func readPieces(meta *metadata) pieces {
	p := pieces{kind: meta.str("tokenizer.ggml.model")}
	list := meta.array("tokenizer.ggml.tokens")
	p.text, p.typ = make([]string, len(list)), make([]uint8, len(list))
	for i, v := range list {
		p.text[i], _ = v.(string)
	}
	for i, v := range meta.array("tokenizer.ggml.token_type") {
		if f, ok := number(v); ok && i < len(p.typ) {
			p.typ[i] = uint8(f)
		}
	}
	return p
}

// BytePairs reports whether the tokenizer encodes byte pairs, word by word.
func (m *Model) BytePairs() bool { return m.pieces.kind == "gpt2" }

// Piece returns the text of a token: bytes, not always whole characters. Control
// tokens give their name, an unknown id gives "".
func (m *Model) Piece(token int32) string { return m.pieces.decode(token) }

func (p *pieces) decode(token int32) string {
	if token < 0 || int(token) >= len(p.text) {
		return ""
	}
	text, typ := p.text[token], p.typ[token]
	switch {
	case typ == tokenControl || typ == tokenUserDefined:
		return text
	case typ == tokenByte:
		if b, ok := byteToken(text); ok {
			return string([]byte{b})
		}
		return text
	case p.kind == "gpt2":
		return decodeByteLevel(text)
	}
	return strings.ReplaceAll(text, "▁", " ")
}

// byteToken reads "<0x0A>".
func byteToken(text string) (byte, bool) {
	hex, ok := strings.CutPrefix(text, "<0x")
	if hex, ok2 := strings.CutSuffix(hex, ">"); ok && ok2 {
		v, err := strconv.ParseUint(hex, 16, 8)
		return byte(v), err == nil
	}
	return 0, false
}

// decodeByteLevel turns the characters with which GPT-2's tokenizer writes bytes
// back into them.
func decodeByteLevel(text string) string {
	out := make([]byte, 0, len(text))
	for _, r := range text {
		if b, ok := byteOfRune[r]; ok {
			out = append(out, b)
		} else {
			out = append(out, string(r)...)
		}
	}
	return string(out)
}

// byteOfRune inverts GPT-2's bytes_to_unicode: printable Latin-1 stands for
// itself, the other bytes for the characters from U+0100 on.
var byteOfRune = func() map[rune]byte {
	m := make(map[rune]byte, 256)
	next := rune(256)
	for b := range 256 {
		switch {
		case b >= '!' && b <= '~', b >= 0xA1 && b <= 0xAC, b >= 0xAE:
			m[rune(b)] = byte(b)
		default:
			m[next] = byte(b)
			next++
		}
	}
	return m
}()

// Texts that mark the parts of infill prompts, for models whose files do not name
// the tokens (llama-vocab.cpp has the same lists).
var fimTexts = []struct {
	of    func(*FIMTokens) *int32
	texts []string
}{
	{func(f *FIMTokens) *int32 { return &f.Prefix }, []string{"<|fim_prefix|>", "<fim-prefix>", "<fim_prefix>", "<｜fim▁begin｜>", "<PRE>", "▁<PRE>", "<|code_prefix|>"}},
	{func(f *FIMTokens) *int32 { return &f.Suffix }, []string{"<|fim_suffix|>", "<fim-suffix>", "<fim_suffix>", "<｜fim▁hole｜>", "<SUF>", "▁<SUF>", "<|code_suffix|>"}},
	{func(f *FIMTokens) *int32 { return &f.Middle }, []string{"<|fim_middle|>", "<fim-middle>", "<fim_middle>", "<｜fim▁end｜>", "<MID>", "▁<MID>", "<|code_middle|>"}},
	{func(f *FIMTokens) *int32 { return &f.Repo }, []string{"<|fim_repo|>", "<|repo_name|>", "<fim-repo>", "<REPO>", "<reponame>"}},
	{func(f *FIMTokens) *int32 { return &f.Separator }, []string{"<|file_sep|>"}},
}

// findFIM fills in what the metadata left open.
func (p *pieces) findFIM(f *FIMTokens) {
	wanted := map[string]*int32{}
	for _, part := range fimTexts {
		if id := part.of(f); *id < 0 {
			for _, text := range part.texts {
				wanted[text] = id
			}
		}
	}
	for i, text := range p.text {
		if id := wanted[text]; id != nil && *id < 0 {
			*id = int32(i)
		}
	}
}
