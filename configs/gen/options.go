package main

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"reflect"
	"strings"
	"time"

	"github.com/semsharekv/semsharekv/configs"
)

// option is one option or section of the configuration, in the order of the
// types.
type option struct {
	path    string // defaults.tenant.source
	depth   int    // dots in path
	section bool   // holds further options
	doc     string // the field's comment, the option's name in place of the field's
	value   string // the default, as YAML
}

func (o option) name() string { return o.path[strings.LastIndex(o.path, ".")+1:] }

// options lists all options, those of routes under "routes".
func options(file string) ([]option, error) {
	docs, err := comments(file)
	if err != nil {
		return nil, err
	}
	var list []option
	walk(reflect.ValueOf(configs.Default()).Elem(), "", docs, &list)
	walk(reflect.ValueOf(configs.Route{}), "routes", docs, &list)
	for _, o := range list {
		if o.doc == "" {
			return nil, fmt.Errorf("%s: option %s has no comment", file, o.path)
		}
	}
	return list, nil
}

func walk(v reflect.Value, path string, docs map[string]string, list *[]option) {
	for i := range v.NumField() {
		f := v.Type().Field(i)
		if f.Anonymous {
			continue // a route's own policy is told under defaults
		}
		name := f.Tag.Get("yaml")
		full := strings.TrimPrefix(path+"."+name, ".")
		doc := docs[v.Type().Name()+"."+f.Name]
		section := f.Type.Kind() == reflect.Struct
		if section && doc == "" {
			doc = docs[f.Type.Name()]
		}
		if rest, ok := strings.CutPrefix(doc, f.Name+" "); ok {
			doc = name + " " + rest
		}
		o := option{path: full, depth: strings.Count(full, "."), section: section, doc: doc}
		if !section {
			o.value = yamlValue(v.Field(i), f.Tag.Get("unit"))
		}
		*list = append(*list, o)
		if section {
			walk(v.Field(i), full, docs, list)
		}
	}
}

func yamlValue(v reflect.Value, unit string) string {
	switch x := v.Interface().(type) {
	case time.Duration:
		return shortDuration(x)
	case []string:
		return "[" + strings.Join(x, ", ") + "]"
	case map[string]string:
		return "{}"
	case []configs.Route:
		return "[]"
	}
	switch {
	case unit == "bytes":
		return configs.FormatSize(v.Int())
	case v.Kind() == reflect.String && v.String() == "":
		return `""`
	case v.Kind() == reflect.String && strings.HasSuffix(v.String(), ":"):
		return `"` + v.String() + `"` // else a key
	case v.Kind() == reflect.String && v.String() == "off":
		return `"off"` // a boolean to older YAML
	default:
		return fmt.Sprint(v.Interface())
	}
}

// shortDuration is 24h rather than 24h0m0s.
func shortDuration(d time.Duration) string {
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}

// comments maps "Type" and "Type.Field" to their doc comments, each on one line.
func comments(file string) (map[string]string, error) {
	tree, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.ParseComments)
	if err != nil {
		return nil, err
	}
	docs := map[string]string{}
	for _, decl := range tree.Decls {
		gen, ok := decl.(*ast.GenDecl)
		if !ok {
			continue
		}
		for _, spec := range gen.Specs {
			ts, ok := spec.(*ast.TypeSpec)
			if !ok {
				continue
			}
			docs[ts.Name.Name] = oneLine(gen.Doc.Text())
			st, ok := ts.Type.(*ast.StructType)
			if !ok {
				continue
			}
			for _, f := range st.Fields.List {
				for _, name := range f.Names {
					docs[ts.Name.Name+"."+name.Name] = oneLine(f.Doc.Text())
				}
			}
		}
	}
	return docs, nil
}

func oneLine(s string) string { return strings.Join(strings.Fields(s), " ") }
