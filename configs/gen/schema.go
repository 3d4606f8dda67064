package main

import (
	"encoding/json"
	"fmt"
	"reflect"
	"strings"
	"time"

	"github.com/invopop/jsonschema"
	"github.com/semsharekv/semsharekv/configs"
	"go.yaml.in/yaml/v4"
)

// schema is the JSON schema of the configuration file.
func schema(opts []option) ([]byte, error) {
	r := jsonschema.Reflector{
		Anonymous:                  true,
		DoNotReference:             true,
		RequiredFromJSONSchemaTags: true,
		Mapper: func(t reflect.Type) *jsonschema.Schema {
			if t == reflect.TypeFor[time.Duration]() {
				return &jsonschema.Schema{Type: "string", Pattern: `^(0|([0-9]+(\.[0-9]*)?(ns|us|µs|ms|s|m|h))+)$`}
			}
			return nil
		},
	}
	s := r.Reflect(&configs.Config{})
	s.Title = "SemShareKV configuration"
	docs := map[string]option{}
	for _, o := range opts {
		docs[o.path] = o
	}
	if err := describe(s, reflect.TypeFor[configs.Config](), "", docs); err != nil {
		return nil, err
	}
	text, err := json.MarshalIndent(s, "", "  ")
	return append(text, '\n'), err
}

// describe adds comments, defaults and sizes. The fields that a route shares
// with defaults have no default of their own.
func describe(s *jsonschema.Schema, t reflect.Type, path string, docs map[string]option) error {
	for i := range t.NumField() {
		f := t.Field(i)
		name := f.Tag.Get("yaml")
		full := strings.TrimPrefix(path+"."+name, ".")
		if f.Anonymous {
			if err := describe(s, f.Type, inRoute+"defaults", docs); err != nil {
				return err
			}
			continue
		}
		p, ok := s.Properties.Get(name)
		if !ok {
			return fmt.Errorf("option %s is not in the schema", full)
		}
		if f.Tag.Get("unit") == "bytes" {
			p.Type = ""
			p.AnyOf = []*jsonschema.Schema{
				{Type: "integer", Minimum: "1"},
				{Type: "string", Pattern: `^[0-9]+(\.[0-9]+)? ?([KMGT]i?B|kB|B)?$`},
			}
		}
		o := docs[strings.TrimPrefix(full, inRoute)]
		p.Description = o.doc
		if !o.section && !strings.HasPrefix(full, inRoute) && !strings.HasPrefix(full, "routes.") && examples[full] == "" {
			if err := yaml.Unmarshal([]byte(o.value), &p.Default); err != nil {
				return fmt.Errorf("default of %s: %w", full, err)
			}
		}
		var err error
		switch {
		case f.Type.Kind() == reflect.Struct:
			err = describe(p, f.Type, full, docs)
		case f.Type == reflect.TypeFor[[]configs.Route]():
			err = describe(p.Items, f.Type.Elem(), full, docs)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// inRoute marks the path of a field of defaults that stands in a route.
const inRoute = "routes:"
