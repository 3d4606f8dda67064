package main

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"github.com/semsharekv/semsharekv/configs"
	"go.yaml.in/yaml/v4"
)

func TestGeneratedFilesAreUpToDate(t *testing.T) {
	files, err := generate("..")
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range files {
		have, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(have, want) {
			t.Errorf("%s is not what the types say; run `go generate ./configs`", filepath.Base(name))
		}
	}
}

func TestExampleIsTheDefaults(t *testing.T) {
	c, err := configs.Load("../semsharekv.example.yaml", nil)
	if err != nil {
		t.Fatal(err)
	}
	want := configs.Default()
	want.Backend.URL, want.Backend.SlotDir = examples["backend.url"], examples["backend.slot_dir"]
	if !reflect.DeepEqual(c, want) {
		t.Errorf("the example reads as\n%+v\nwant the defaults\n%+v", c, want)
	}
}

func TestExampleRoutesWork(t *testing.T) {
	text, err := os.ReadFile("../semsharekv.example.yaml")
	if err != nil {
		t.Fatal(err)
	}
	text = regexp.MustCompile(`(?m)^#(routes:|  )`).ReplaceAll(text, []byte("$1"))
	c, err := configs.Parse("example", text, nil)
	if err != nil {
		t.Fatal(err)
	}
	if len(c.Routes) != 3 {
		t.Fatalf("%d routes, want 3", len(c.Routes))
	}
	if err := validateWithSchema(t, string(text)); err != nil {
		t.Error(err)
	}
}

func TestSchemaAgreesWithTheDecoder(t *testing.T) {
	const base = "backend: {url: http://h:1, slot_dir: /d}\n"
	f := func(text string, good bool) {
		t.Helper()
		_, err := configs.Parse("f", []byte(base+text), nil)
		if (err == nil) != good {
			t.Errorf("%q: the decoder says %v", text, err)
		}
		if err := validateWithSchema(t, base+text); (err == nil) != good {
			t.Errorf("%q: the schema says %v", text, err)
		}
	}
	f("", true)
	f("limits: {body_bytes: 1048576}", true)
	f("limits: {body_bytes: 1.5GiB, idle_timeout: 1m30s}", true)
	f("store: {novelty: 0.5, max_generation: 0}", true)
	f("defaults: {critical: []}", true)
	f("routes: [{name: a, reuse: exact, tenant: {source: api_key}}]", true)
	f("routes: [{match: {path: '/v1/*', headers: {X-A: b}}, seam: 0}]", true)

	f("lissten: 127.0.0.1:1", false)
	f("limits: {body_bytes: many}", false)
	f("limits: {body_bytes: 0}", false)
	f("limits: {idle_timeout: soon}", false)
	f("limits: {connections: 0}", false)
	f("store: {novelty: 1.5}", false)
	f("log: {level: loud}", false)
	f("defaults: {reuse: sometimes}", false)
	f("defaults: {critical: [verbs]}", false)
	f("defaults: {critical: [name, name]}", false)
	f("defaults: {references: 65}", false)
	f("routes: [{name: a, unrepaired: maybe}]", false)
	f("routes: [{name: a, colour: red}]", false)
	f("routes: {name: a}", false)
	f("routes: [null]", false)
}

func TestSchemaAcceptsTheExample(t *testing.T) {
	text, err := os.ReadFile("../semsharekv.example.yaml")
	if err != nil {
		t.Fatal(err)
	}
	if err := validateWithSchema(t, string(text)); err != nil {
		t.Error(err)
	}
}

func validateWithSchema(t *testing.T, text string) error {
	t.Helper()
	schema, err := jsonschema.NewCompiler().Compile("../semsharekv.schema.json")
	if err != nil {
		t.Fatal(err)
	}
	var v any
	if err := yaml.Unmarshal([]byte(text), &v); err != nil {
		t.Fatal(err)
	}
	asJSON, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	inst, err := jsonschema.UnmarshalJSON(strings.NewReader(string(asJSON)))
	if err != nil {
		t.Fatal(err)
	}
	return schema.Validate(inst)
}
