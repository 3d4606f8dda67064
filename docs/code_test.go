package docs

import (
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// source parses the Go files of folders, tests left out.
func source(t *testing.T, folders ...string) []*ast.File {
	t.Helper()
	var out []*ast.File
	for _, folder := range folders {
		files, err := filepath.Glob(filepath.Join("..", folder, "*.go"))
		if err != nil || len(files) == 0 {
			t.Fatalf("no Go files in %s: %v", folder, err)
		}
		for _, f := range files {
			if strings.HasSuffix(f, "_test.go") {
				continue
			}
			file, err := parser.ParseFile(token.NewFileSet(), f, nil, 0)
			if err != nil {
				t.Fatal(err)
			}
			out = append(out, file)
		}
	}
	return out
}

// each calls f with every node of a kind.
func each[N ast.Node](files []*ast.File, f func(N)) {
	for _, file := range files {
		ast.Inspect(file, func(n ast.Node) bool {
			if n, ok := n.(N); ok {
				f(n)
			}
			return true
		})
	}
}

// literal is the value of a string literal.
func literal(e ast.Expr) (string, bool) {
	l, ok := e.(*ast.BasicLit)
	if !ok || l.Kind != token.STRING {
		return "", false
	}
	s, err := strconv.Unquote(l.Value)
	return s, err == nil
}

// called is the name of the function or method that is called.
func called(c *ast.CallExpr) string {
	switch f := c.Fun.(type) {
	case *ast.SelectorExpr:
		return f.Sel.Name
	case *ast.Ident:
		return f.Name
	}
	return ""
}

// constants are the string constants whose names begin with a prefix and an
// upper-case letter.
func constants(files []*ast.File, prefix string) []string {
	var out []string
	each(files, func(v *ast.ValueSpec) {
		for i, name := range v.Names {
			rest, ok := strings.CutPrefix(name.Name, prefix)
			if !ok || rest == "" || strings.ToLower(rest[:1]) == rest[:1] || i >= len(v.Values) {
				continue
			}
			if s, ok := literal(v.Values[i]); ok {
				out = append(out, s)
			}
		}
	})
	return out
}

// constantsOf are the string constants that are declared with a type.
func constantsOf(files []*ast.File, kind string) []string {
	var out []string
	each(files, func(v *ast.ValueSpec) {
		if declared, ok := v.Type.(*ast.Ident); !ok || declared.Name != kind {
			return
		}
		for _, value := range v.Values {
			if s, ok := literal(value); ok {
				out = append(out, s)
			}
		}
	})
	return out
}

func unique(s []string) []string {
	slices.Sort(s)
	return slices.Compact(s)
}

func TestEveryReasonIsDocumented(t *testing.T) {
	proxy := source(t, "proxy")
	there := append(constants(proxy, "cold"), constants(proxy, "off")...)
	same(t, "reasons", names(table(t, "troubleshooting.md", "## Why a request is cold")), there)
}

// Doctor's checks are the first arguments of ok, the second of add, or the constant
// check of the function.
func TestEveryFindingOfDoctorIsDocumented(t *testing.T) {
	files := source(t, "doctor", ".")
	var there []string
	each(files, func(f *ast.FuncDecl) {
		own := ""
		ast.Inspect(f, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.ValueSpec:
				if n.Names[0].Name == "check" && len(n.Values) == 1 {
					own, _ = literal(n.Values[0])
					there = append(there, own)
				}
			case *ast.CallExpr:
				at := slices.Index([]string{"ok", "add"}, called(n))
				if s, ok := argument(n, at); ok && recv(f) == "examination" {
					there = append(there, s)
				}
			}
			return true
		})
	})
	there = append(there, "listen", "admin") // a list in addresses()
	same(t, "doctor's checks", names(table(t, "troubleshooting.md", "## What doctor finds")), unique(slices.DeleteFunc(there, func(s string) bool { return s == "" })))
}

func recv(f *ast.FuncDecl) string {
	if f.Recv == nil {
		// The command's own findings are made by a function.
		return ""
	}
	if star, ok := f.Recv.List[0].Type.(*ast.StarExpr); ok {
		if id, ok := star.X.(*ast.Ident); ok {
			return id.Name
		}
	}
	return ""
}

func argument(c *ast.CallExpr, at int) (string, bool) {
	if at < 0 || at >= len(c.Args) {
		return "", false
	}
	return literal(c.Args[at])
}

// logging folders are those whose log an operator reads.
var logging = []string{".", "proxy", "launch", "inject"}

// chain are the calls that a chain of methods is made of, the last first.
func chain(c *ast.CallExpr) []*ast.CallExpr {
	out := []*ast.CallExpr{c}
	for {
		sel, ok := c.Fun.(*ast.SelectorExpr)
		if !ok {
			return out
		}
		if c, ok = sel.X.(*ast.CallExpr); !ok {
			return out
		}
		out = append(out, c)
	}
}

func TestEveryWarningIsDocumented(t *testing.T) {
	var there []string
	each(source(t, logging...), func(c *ast.CallExpr) {
		text, ok := argument(c, 0)
		if !ok || called(c) != "Msg" {
			return
		}
		for _, link := range chain(c) {
			if name := called(link); (name == "Warn" || name == "Error") && len(link.Args) == 0 {
				there = append(there, text)
			}
		}
	})
	there = append(there, "request") // its level is chosen by what happened
	same(t, "warnings", names(table(t, "troubleshooting.md", "## Warnings and errors in the log")), unique(there))
}

func TestEveryLogFieldIsDocumented(t *testing.T) {
	kinds := []string{"Str", "Strs", "Int", "Int64", "Float64", "Bool", "Dur", "Stringer", "Bytes", "Interface", "Time"}
	var there []string
	each(source(t, logging...), func(c *ast.CallExpr) {
		// A field has a name and a value; flags of the same method names have more.
		if field, ok := argument(c, 0); ok && len(c.Args) == 2 && slices.Contains(kinds, called(c)) && field != "error" {
			there = append(there, field)
		}
	})
	same(t, "log fields", names(table(t, "operations.md", "## Log fields")), unique(there))
}
