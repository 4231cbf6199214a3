package main

import (
	"bytes"
	"cmp"
	"context"
	"embed"
	"errors"
	"fmt"
	"go/format"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"text/template"

	"github.com/oasgate/oasgate/authz/server/deploy"
)

//go:embed initfiles
var initFiles embed.FS

// initFile is a file to write. A generated file replaces an existing one.
type initFile struct {
	name      string
	data      []byte
	generated bool
}

// compose creates the files that the folder lacks.
func (r *repository) compose(ctx context.Context, t *tool, source string) error {
	r.Title = oneLine(r.document.Info.Title)
	for _, o := range describe(r.document, credentials(r.document)) {
		r.Operations = append(
			r.Operations,
			initOperation{o.ID, o.Method, o.Path, o.access.String()},
		)
	}
	if err := r.generate(ctx, source, t.overlays); err != nil {
		return err
	}
	for template, name := range map[string]string{
		"go.mod": "go.mod", "main.go": "main.go", "tools.go": "tools.go",
		"oapi-codegen.yaml": ".oapi-codegen.yaml", "api_test.go": "api_test.go",
		"env.example": ".env.example", "gitignore": ".gitignore",
		"ci.yml": ".github/workflows/ci.yml", "README.md": "README.md",
	} {
		if err := r.add(template, name); err != nil {
			return err
		}
	}
	deployment, err := deploy.Files(deploy.Options{
		Name: r.Name, Go: r.Go[:strings.LastIndexByte(r.Go, '.')],
	}, "deploy")
	if err != nil {
		return err
	}
	for name, data := range deployment {
		r.addData(name, data)
	}
	routes := "routes_echo.go"
	if r.Router == "std" {
		routes = "routes_std.go"
	}
	if r.First {
		err := r.add(routes, "impl/routes.go")
		if err = errors.Join(err, r.add("handlers.go", "impl/handlers.go")); err != nil {
			return err
		}
	} else if err := r.addHandlers(); err != nil {
		return err
	}
	if slices.ContainsFunc(r.Handlers, func(h initHandler) bool { return h.Example != nil }) {
		if err := r.add("example.go", "impl/example.go"); err != nil {
			return err
		}
	}
	slices.SortFunc(r.files, func(a, b initFile) int { return cmp.Compare(a.name, b.name) })
	return nil
}

// addHandlers adds a file for each operation without a handler, beside the existing ones.
func (r *repository) addHandlers() error {
	for _, h := range r.Handlers {
		one := *r
		one.Handlers, one.Unanswered, one.files = []initHandler{h}, h.Example == nil, nil
		if err := one.add("handlers.go", "impl/"+strings.ToLower(h.Name)+".go"); err != nil {
			return err
		}
		if len(one.files) == 0 {
			return fmt.Errorf(
				"impl/%s.go exists, but has no method %s: add it",
				strings.ToLower(h.Name),
				h.Name,
			)
		}
		r.files = append(r.files, one.files...)
	}
	return nil
}

// add adds a file, unless the folder has it.
func (r *repository) add(name, target string) error {
	data, err := r.fill(name)
	if err != nil {
		return err
	}
	r.addData(target, data)
	return nil
}

func (r *repository) addData(target string, data []byte) {
	if _, err := os.Lstat(filepath.Join(r.folder, filepath.FromSlash(target))); err != nil {
		r.files = append(r.files, initFile{name: target, data: data})
	}
}

func (r *repository) fill(name string) ([]byte, error) {
	text, err := fs.ReadFile(initFiles, "initfiles/"+name+".tmpl")
	if err != nil {
		return nil, err
	}
	filled, err := template.New(name).
		Funcs(template.FuncMap{"quote": strconv.Quote, "literal": literal}).
		Parse(string(text))
	if err != nil {
		return nil, err
	}
	var b bytes.Buffer
	if err := filled.Execute(&b, r); err != nil {
		return nil, err
	}
	if strings.HasSuffix(name, ".go") {
		return format.Source(b.Bytes())
	}
	return b.Bytes(), nil
}

// literal returns text as a Go literal that is easy to read.
func literal(text string) string {
	if strings.Contains(text, "\n") && strconv.CanBackquote(strings.ReplaceAll(text, "\n", "")) {
		return "`" + text + "`"
	}
	return strconv.Quote(text)
}

// write writes the files, and adds to go.mod what they import.
func (r *repository) write(ctx context.Context) error {
	for _, f := range r.files {
		if err := f.write(r.folder); err != nil {
			return err
		}
	}
	if len(r.files) == 0 {
		return nil
	}
	return tidy(ctx, r.folder)
}

func (f initFile) write(folder string) error {
	target := filepath.Join(folder, filepath.FromSlash(f.name))
	if err := os.MkdirAll(filepath.Dir(target), 0o755); err != nil {
		return err
	}
	if f.generated {
		return os.WriteFile(target, f.data, 0o644)
	}
	file, err := os.OpenFile(target, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return err
	}
	_, err = file.Write(f.data)
	return errors.Join(err, file.Close())
}

// tidy runs go mod tidy.
func tidy(ctx context.Context, folder string) error {
	command := exec.CommandContext(ctx, "go", "mod", "tidy")
	command.Dir = folder
	said, err := command.CombinedOutput()
	if err == nil {
		return nil
	}
	var lines []string
	for line := range strings.Lines(string(said)) {
		if !strings.HasPrefix(line, "go: downloading ") && !strings.HasPrefix(line, "go: find") &&
			!strings.HasPrefix(line, "go: found ") {
			lines = append(lines, strings.TrimSpace(line))
		}
	}
	return fmt.Errorf(
		"the files are written, but go mod tidy fails in %s: %w\n%s",
		folder,
		err,
		strings.Join(lines, "\n"),
	)
}
