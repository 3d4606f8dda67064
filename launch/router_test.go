package launch

import (
	"strings"
	"testing"
)

func TestARouterOfModelsIsRefused(t *testing.T) {
	f := func(c *Command, want string) {
		t.Helper()
		if err := c.Check(false); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v: %v does not say %q", c, err, want)
		}
	}
	f(command("llama-server --models-dir /models"), "--models-dir /models: a router")
	f(command("nice llama-server --models_preset p.ini"), "--models-preset p.ini: a router")
	f(command("./start.sh", "LLAMA_ARG_MODELS_DIR=/models"), "--models-dir /models: a router")
	f(command("llama-server --port 8080"), "names no model")
	f(command("/app/llama serve"), "names no model")
	f(command("/app/llama server"), "names no model")
	f(command("llama-server --model-draft d.gguf"), "names no model")
	f(command("llama-server --spec-default"), "names no model") // how to draft, not what
	f(command("llama-server --spec_default"), "names no model")
	f(command("llama-server --model=x"), "names no model") // an invalid argument
}

// Only what is certain to be a router is refused.
func TestAServerThatMayHaveAModelIsTaken(t *testing.T) {
	f := func(c *Command) {
		t.Helper()
		if err := c.Check(false); err != nil {
			t.Errorf("%v: %v", c, err)
		}
	}
	f(command("llama-server -m x --models-dir /models"))
	f(command("llama-server --hf_repo a/b"))
	f(command("llama-server -dr gemma3"))
	f(command("llama-server --gpt-oss-20b-default"))
	f(command("llama-server --fim-qwen-7b-spec"))
	f(command("llama-server", "LLAMA_ARG_HF_REPO=a/b"))
	f(command("/app/llama serve -m x"))
	f(command("./start.sh"))
	f(command("env LLAMA_ARG_MODEL=x llama-server"))
}
