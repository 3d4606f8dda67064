package bridge

import (
	"encoding/binary"
	"fmt"
	"math"
	"slices"
	"strings"
)

// How llama.cpp pairs the elements of a key, by architecture (llama-model.cpp,
// llama_model_rope_type). What stands in none of the lists is not shared.
var (
	normArchs = words(`llama deci baichuan internlm2 minicpm xverse command-r olmo arctic deepseek chatglm
		granite granitemoe chameleon bailingmoe arcee ernie4_5 ernie4_5-moe mistral3 mistral4 maincoder glm4
		nanbeige llada`)
	neoxArchs = words(`falcon grok dbrx stablelm bitnet qwen qwen2 dream qwen2moe qwen3 qwen3moe llada-moe rnd1
		olmo2 olmoe phi2 phi3 phimoe plamo gemma starcoder2 openelm gptneox codeshell orion nemotron exaone
		glm4moe bailingmoe2 dots1 hunyuan-moe hunyuan-dense jais2 seed_oss grovemoe apertus minimax-m2
		pangu-embedded`)

	// Architectures whose cache is refused, by what is in it.
	slidingArchs = words(`gemma2 gemma3 gemma3n gemma4 gemma-embedding cohere2 cohere2moe llama4 gpt-oss exaone4
		exaone-moe smallthinker mimo2 step35 afmoe laguna plamo3`)
	recurrentArchs = words(`mamba mamba2 jamba rwkv6 rwkv6qwen2 rwkv7 arwkv7 falcon-h1 granitehybrid nemotron_h
		nemotron_h_moe plamo2 lfm2 lfm2moe qwen3next kimi-linear qwen4exp`)
	latentArchs  = words(`deepseek2 deepseek2-ocr deepseek32 deepseek4 minicpm3 plm glm-dsa`)
	mropeArchs   = words(`qwen2vl qwen3vl qwen3vlmoe qwen35 qwen35moe qwen3tts paddleocr`)
	encoderArchs = words(`bert nomic-bert nomic-bert-moe jina-bert-v2 jina-bert-v3 modern-bert neo-bert eurobert
		t5 t5encoder clip wavtokenizer-dec llama-embed`)
	unrotatedArchs = words(`gpt2 gptj mpt refact bloom jais starcoder`)
	mixedArchs     = words(`smollm3`)

	// Architectures for which llama.cpp does not look at attention.sliding_window,
	// though files carry it.
	ignoreWindow = words(`llama qwen2 qwen2moe qwen3 qwen3moe mistral3 starcoder2`)
)

func words(list string) []string { return strings.Fields(list) }

// refusal names why a model's KV cannot be shared, or returns "".
func refusal(meta *metadata) string {
	arch := meta.arch
	in := func(list []string) bool { return slices.Contains(list, arch) }
	window := meta.num("attention.sliding_window", 0) > 0 && !in(ignoreWindow)
	switch {
	case in(encoderArchs) || meta.has("attention.causal") && !meta.flag("attention.causal", true):
		return arch + " is an encoder: its KV cannot be continued"
	case in(recurrentArchs) || hasSSM(meta):
		return arch + " has recurrent layers: their state belongs to the whole prompt, not to tokens"
	case in(latentArchs) || meta.num("attention.kv_lora_rank", 0) > 0:
		return arch + " has latent attention (MLA): its keys are not rotated as a whole"
	case in(mropeArchs) || len(meta.array("rope.dimension_sections")) > 0:
		return arch + " has M-RoPE: its tokens have more than one position"
	case in(slidingArchs) || window:
		return arch + " has sliding-window layers: they do not keep all tokens"
	case in(unrotatedArchs) || arch == "baichuan" && meta.num("block_count", 0) == 40:
		return arch + " does not use RoPE: its keys cannot be moved"
	case slices.ContainsFunc(meta.array("attention.head_count_kv"), isZero):
		return arch + " has layers without attention: those keep no tokens"
	case in(mixedArchs):
		return arch + " has layers without RoPE: their keys cannot be moved with the others'"
	case !in(normArchs) && !in(neoxArchs):
		return "architecture " + arch + " is not known to this version"
	}
	return ""
}

func isZero(v any) bool {
	n, ok := number(v)
	return ok && n == 0
}

// hasSSM tells whether any key of the architecture describes a state space or a
// convolution.
func hasSSM(meta *metadata) bool {
	for _, kv := range meta.file.Header.MetadataKV {
		key, ok := strings.CutPrefix(kv.Key, meta.arch+".")
		if ok && (strings.HasPrefix(key, "ssm.") || strings.HasPrefix(key, "wkv.") || strings.HasPrefix(key, "shortconv.")) {
			return true
		}
	}
	return false
}

// readRoPE sets RoPE, or Unshareable.
func (m *Model) readRoPE(meta *metadata) {
	if m.Unshareable = refusal(meta); m.Unshareable != "" {
		return
	}
	p, err := m.ropeParams(meta)
	if err == nil {
		m.RoPE, err = NewRoPE(p)
	}
	if err != nil {
		m.Unshareable = err.Error()
	}
}

// ropeParams reads the settings as llama.cpp does (llama_model::load_hparams).
func (m *Model) ropeParams(meta *metadata) (RoPEParams, error) {
	p := RoPEParams{
		NEOX:    slices.Contains(neoxArchs, m.Arch),
		HeadDim: m.HeadDim,
		Dims:    meta.num("rope.dimension_count", m.HeadDim),
		Base:    meta.float("rope.freq_base", 10000),
	}
	factor := meta.float("rope.scaling.factor", meta.float("rope.scale_linear", 0))
	if factor != 0 {
		p.Scale = 1 / factor
	}
	if meta.float("rope.scaling.alpha", 0) > 0 {
		return p, fmt.Errorf("rope: scaling by alpha (NTK) is not known to this version")
	}
	switch scaling := meta.str("rope.scaling.type"); scaling {
	case "", "linear":
	case "none":
		p.Scale = 1
	case "yarn":
		p.YaRN = &YaRNParams{
			OrigCtx:   meta.num("rope.scaling.original_context_length", m.Context),
			ExtFactor: meta.float("rope.scaling.yarn_ext_factor", 1),
			BetaFast:  meta.float("rope.scaling.yarn_beta_fast", 32),
			BetaSlow:  meta.float("rope.scaling.yarn_beta_slow", 1),
		}
	case "longrope":
		return p, fmt.Errorf("rope: scaling %s depends on the server's context: its keys cannot be moved", scaling)
	default:
		return p, fmt.Errorf("rope: scaling %q: expected none, linear or yarn", scaling)
	}
	var err error
	p.Factors, err = m.ropeFactors(meta, p.Dims/2)
	return p, err
}

// ropeFactors reads the frequency factors of n pairs, nil where there are none.
func (m *Model) ropeFactors(meta *metadata, n int) ([]float32, error) {
	if _, long := meta.file.TensorInfos.Get("rope_factors_long.weight"); long {
		return nil, fmt.Errorf("rope: long and short frequency factors depend on the server's context: its keys cannot be moved")
	}
	t, data, ok := m.tensor(meta.file, "rope_freqs.weight")
	if !ok {
		return nil, nil
	}
	switch {
	case KVType(t.Type) != F32 || len(t.Dimensions) == 0 || t.Dimensions[0] != uint64(n):
		return nil, fmt.Errorf("rope: frequency factors %v of %s: expected %d of f32", t.Dimensions, KVType(t.Type), n)
	case len(data) < n*4:
		return nil, fmt.Errorf("rope: %d frequency factors: the file has %d bytes from where they begin", n, len(data))
	}
	factors := make([]float32, n)
	for i := range factors {
		factors[i] = math.Float32frombits(binary.LittleEndian.Uint32(data[i*4:]))
	}
	return factors, nil
}
