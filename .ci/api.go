// Command api maintains .ci/api.txt, a listing of the exported API of authz and the packages below
// it. Without -write it compares the code with the listing, and with that of the last tag, to find
// changes that break importers.
//
//	go run .ci/api.go [-write]
package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"go/importer"
	"go/token"
	"go/types"
	"io"
	"maps"
	"os"
	"os/exec"
	"slices"
	"strings"
)

const listing = ".ci/api.txt"

func main() {
	write := flag.Bool("write", false, "write the listing")
	flag.Parse()
	if err := run(*write); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(write bool) error {
	now, err := exported()
	if err != nil {
		return err
	}
	if write {
		return os.WriteFile(listing, []byte(strings.Join(now, "\n")+"\n"), 0o644)
	}
	committed, err := os.ReadFile(listing)
	if err != nil {
		return err
	}
	gone, added := compare(lines(committed), now)
	report("gone or changed, which breaks importers", gone)
	report("added", added)
	err = nil
	if len(gone)+len(added) > 0 {
		err = errors.New("the exported API differs from .ci/api.txt: " +
			"if that is intended, run go run .ci/api.go -write and commit")
	}
	// Compare with the listing of the last tag as well.
	tag, failed := exec.Command("git", "describe", "--tags", "--abbrev=0", "--match=v*").Output()
	if failed != nil {
		fmt.Println("no tag yet: compared with the committed listing")
		return err
	}
	name := strings.TrimSpace(string(tag))
	released, failed := exec.Command("git", "show", name+":"+listing).Output()
	if failed != nil {
		return fmt.Errorf("tag %s has no %s to compare with", name, listing)
	}
	if gone, _ := compare(lines(released), now); len(gone) > 0 {
		report("gone or changed since "+name, gone)
		err = errors.Join(err, fmt.Errorf("the exported API breaks importers of %s", name))
	}
	return err
}

func lines(listing []byte) []string {
	return strings.Split(strings.TrimSpace(string(listing)), "\n")
}

// compare returns the lines that only before has, and those that only after has.
func compare(before, after []string) (gone, added []string) {
	lacks := func(list []string) func(string) bool {
		return func(line string) bool { return slices.Contains(list, line) }
	}
	return slices.DeleteFunc(slices.Clone(before), lacks(after)),
		slices.DeleteFunc(slices.Clone(after), lacks(before))
}

func report(what string, lines []string) {
	for _, line := range lines {
		fmt.Printf("%s: %s\n", what, line)
	}
}

// exported lists the API of the importable packages.
func exported() ([]string, error) {
	const fields = "-json=ImportPath,Name,Export,Module"
	command := exec.Command("go", "list", "-export", "-deps", fields, "./authz/...")
	command.Stderr = os.Stderr
	out, err := command.Output()
	if err != nil {
		return nil, fmt.Errorf("go list: %w", err)
	}
	type listed struct {
		ImportPath, Name, Export string
		Module                   *struct {
			Path string
			Main bool
		}
	}
	files := map[string]string{}
	var ours []string
	module := ""
	for decoder := json.NewDecoder(bytes.NewReader(out)); ; {
		var p listed
		if err := decoder.Decode(&p); err == io.EOF {
			break
		} else if err != nil {
			return nil, err
		}
		files[p.ImportPath] = p.Export
		importable := p.Name != "main" && !strings.Contains(p.ImportPath+"/", "/internal/")
		if p.Module != nil && p.Module.Main && importable {
			ours, module = append(ours, p.ImportPath), p.Module.Path
		}
	}
	open := func(path string) (io.ReadCloser, error) { return os.Open(files[path]) }
	load := importer.ForCompiler(token.NewFileSet(), "gc", open)
	var all []string
	for _, path := range ours {
		pkg, err := load.Import(path)
		if err != nil {
			return nil, err
		}
		l := lister{pkg, module}
		for _, name := range pkg.Scope().Names() {
			if object := pkg.Scope().Lookup(name); object.Exported() {
				all = append(all, l.list(object)...)
			}
		}
	}
	slices.Sort(all)
	return all, nil
}

type lister struct {
	pkg    *types.Package
	module string
}

// qualify shortens the paths of our own packages, and omits that of the listed package.
func (l lister) qualify(p *types.Package) string {
	if p == l.pkg {
		return ""
	}
	return l.below(p)
}

func (l lister) below(p *types.Package) string { return strings.TrimPrefix(p.Path(), l.module+"/") }

func (l lister) text(t types.Type) string { return types.TypeString(unnamed(t), l.qualify) }

func (l lister) list(object types.Object) (all []string) {
	line := func(format string, args ...any) {
		all = append(all, l.below(l.pkg)+": "+fmt.Sprintf(format, args...))
	}
	name := object.Name()
	switch object := object.(type) {
	case *types.Const:
		line("const %s %s = %s", name, l.text(object.Type()), object.Val())
	case *types.Var:
		line("var %s %s", name, l.text(object.Type()))
	case *types.Func:
		line("func %s%s", name, strings.TrimPrefix(l.text(object.Type()), "func"))
	case *types.TypeName:
		if object.IsAlias() {
			line("type %s = %s", name, l.text(types.Unalias(object.Type())))
			return all
		}
		named := object.Type().(*types.Named)
		switch underlying := named.Underlying().(type) {
		case *types.Struct:
			line("type %s struct", name)
			for field := range underlying.Fields() {
				if field.Exported() {
					line("type %s struct, field %s %s", name, field.Name(), l.text(field.Type()))
				}
			}
		case *types.Interface: // on one line, because an added method breaks implementations
			line("type %s %s", name, l.text(underlying))
			return all
		default:
			line("type %s %s", name, l.text(underlying))
		}
		methods := map[string]string{} // of a value and of a pointer
		for _, receiver := range []types.Type{types.NewPointer(named), named} {
			for selection := range types.NewMethodSet(receiver).Methods() {
				if method := selection.Obj(); method.Exported() {
					methods[method.Name()] = fmt.Sprintf("method (%s) %s%s",
						types.TypeString(receiver, l.qualify), method.Name(),
						strings.TrimPrefix(l.text(selection.Type()), "func"))
				}
			}
		}
		for _, method := range slices.Sorted(maps.Values(methods)) {
			line("%s", method)
		}
	}
	return all
}

// unnamed returns t without the names of parameters, whose changes break nobody.
func unnamed(t types.Type) types.Type {
	switch t := t.(type) {
	case *types.Signature:
		tuple := func(of *types.Tuple) *types.Tuple {
			var all []*types.Var
			for v := range of.Variables() {
				all = append(all, types.NewParam(0, nil, "", unnamed(v.Type())))
			}
			return types.NewTuple(all...)
		}
		if t.TypeParams().Len() > 0 {
			return t // type parameters belong to one signature
		}
		parameters, results := tuple(t.Params()), tuple(t.Results())
		return types.NewSignatureType(nil, nil, nil, parameters, results, t.Variadic())
	case *types.Pointer:
		return types.NewPointer(unnamed(t.Elem()))
	case *types.Slice:
		return types.NewSlice(unnamed(t.Elem()))
	case *types.Map:
		return types.NewMap(unnamed(t.Key()), unnamed(t.Elem()))
	}
	return t
}
