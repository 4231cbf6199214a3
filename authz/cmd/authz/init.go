package main

import (
	"bytes"
	"cmp"
	"context"
	"embed"
	"encoding/json"
	"errors"
	"fmt"
	"go/format"
	"io/fs"
	"net/url"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"text/template"

	"github.com/getkin/kin-openapi/openapi3"

	"github.com/oasgate/oasgate/authz"
	"github.com/oasgate/oasgate/authz/authztest"
	"github.com/oasgate/oasgate/authz/internal/echopath"
	"github.com/oasgate/oasgate/authz/server/deploy"
	"github.com/oasgate/oasgate/authz/token"
)

type initCommand struct {
	Folder   string `arg:"" default:"." help:"Folder of the new repository, or of an existing one to complete."`
	Module   string `placeholder:"PATH" help:"Module path, such as example.com/acme/orders. Default: the one in the folder's go.mod."`
	Document string `placeholder:"FILE" help:"OpenAPI document to copy. Default: the folder's openapi.yaml."`
	Router   string `enum:"echov4,echov5,std," default:"" help:"Router: echov4, echov5 or std, which is net/http. Default: that of the folder, or echov4."`
	Examples bool   `help:"Write handlers that return the examples of the document, if it has any, instead of 501."`
	DryRun   bool   `name:"dry-run" help:"List what would be written, and write nothing."`
	Replace  string `placeholder:"DIR" help:"Use the library in this folder instead of a released version."`
	Name     string `help:"Name of the program. Default: the end of the module path."`
}

// library is the module that the new repository imports.
const library = "github.com/oasgate/oasgate"

//go:embed initfiles
var initFiles embed.FS

// repository is the folder that init writes, and the data of the templates.
type repository struct {
	Library, Module, Name, Title, Prefix string
	Go, Version, Replace                 string
	Router, Server, EchoVersion          string
	Bundle                               bool   // the document is in several files
	Overlay                              string // file of the overlay; "": there is none
	Secrets                              bool   // operations take more than access tokens
	Examples                             bool
	First                                bool   // there are no handlers yet
	Receiver                             string // of handlers
	Operations                           []initOperation
	Handlers                             []initHandler // those that are missing
	Unanswered                           bool          // one of them has no example

	folder   string
	document *openapi3.T
	files    []initFile
}

// initOperation is a row of the README.
type initOperation struct{ ID, Method, Path, Access string }

// initFile is a file to write. A generated file replaces an existing one.
type initFile struct {
	name      string
	data      []byte
	generated bool
}

// initReport is the result of init, for programs.
type initReport struct {
	Folder     string   `json:"folder"`
	Written    []string `json:"written"`
	Handlers   []string `json:"handlers"` // written for these operations
	Operations int      `json:"operations"`
	Public     int      `json:"public"`
	Scopes     int      `json:"scopes"`
	DryRun     bool     `json:"dryRun,omitempty"`
}

func (c *initCommand) Run(ctx context.Context, t *tool) error {
	r, err := c.repository()
	if err != nil {
		return err
	}
	source, copies, err := c.source(r)
	if err != nil {
		return err
	}
	laid, err := c.overlay(t, r)
	if err != nil {
		return err
	}
	copies = append(copies, laid...)
	if r.document, err = t.load(ctx, source, everything, true); err != nil {
		return err
	}
	if found := c.faults(r); len(found) > 0 {
		for _, fault := range found {
			t.printError(fault)
		}
		t.printError(fmt.Sprintf("%s has %s: no files are written", source,
			count(len(found), "fault")))
		return errFound
	}
	r.files = copies
	if err := r.compose(ctx, t, source); err != nil {
		return err
	}
	report := initReport{
		Folder:   c.Folder,
		Written:  []string{},
		Handlers: []string{},
		DryRun:   c.DryRun,
	}
	plan, err := authz.Compile(r.document)
	if err != nil {
		return err
	}
	report.Operations, report.Scopes = len(plan.Operations()), len(plan.Scopes())
	for _, o := range plan.Operations() {
		if o.Public() {
			report.Public++
		}
	}
	for _, h := range r.Handlers {
		report.Handlers = append(report.Handlers, h.ID)
	}
	for _, f := range r.files {
		report.Written = append(report.Written, f.name)
		if !c.DryRun {
			if err := f.write(r.folder); err != nil {
				return err
			}
		}
	}
	if !c.DryRun && len(r.files) > 0 {
		if err := tidy(ctx, r.folder); err != nil {
			return err
		}
	}
	return t.writeResult(report, func(p page) { p.writeInit(report, r) })
}

// repository reads what the folder already has.
func (c *initCommand) repository() (*repository, error) {
	folder, err := filepath.Abs(c.Folder)
	if err != nil {
		return nil, err
	}
	r := &repository{Library: library, Module: c.Module, Examples: c.Examples, folder: folder}
	gomod, _ := os.ReadFile(filepath.Join(folder, "go.mod"))
	if m := regexp.MustCompile(`(?m)^module\s+"?([^\s"]+)`).FindSubmatch(gomod); m != nil {
		if c.Module != "" && c.Module != string(m[1]) {
			return nil, fmt.Errorf(
				"--module is %s, but %s is the module of %s",
				c.Module,
				filepath.Join(c.Folder, "go.mod"),
				m[1],
			)
		}
		r.Module = string(m[1])
	}
	if !regexp.MustCompile(`^[A-Za-z0-9._~/-]+$`).MatchString(r.Module) ||
		strings.Trim(r.Module, "/") != r.Module {
		return nil, fmt.Errorf(
			"--module is %q: expected a module path such as example.com/acme/orders",
			r.Module,
		)
	}
	base := regexp.MustCompile(`^v[0-9]+$`).ReplaceAllString(path.Base(r.Module), "")
	if base == "" {
		base = path.Base(path.Dir(r.Module))
	}
	r.Name = cmp.Or(
		c.Name,
		strings.Trim(
			regexp.MustCompile(`[^a-z0-9]+`).ReplaceAllString(strings.ToLower(base), "-"),
			"-0123456789",
		),
		"api",
	)
	if !regexp.MustCompile(`^[a-z][a-z0-9-]*$`).MatchString(r.Name) {
		return nil, fmt.Errorf(
			"--name is %q: expected a word such as orders: lower case letters, digits, hyphens",
			r.Name,
		)
	}
	r.Prefix = strings.ToUpper(strings.ReplaceAll(r.Name, "-", "_")) + "_"
	if r.Router, err = c.router(folder); err != nil {
		return nil, err
	}
	r.Server = servers[r.Router]
	r.EchoVersion = strings.TrimPrefix(r.Router, "echo")
	r.Go, r.Version = "1.26.0", "v0.0.0"
	if c.Replace != "" {
		if r.Replace, err = filepath.Abs(c.Replace); err != nil {
			return nil, err
		}
	} else if info, ok := debug.ReadBuildInfo(); ok {
		r.Version = libraryVersion(info)
	}
	if r.Version == "" && gomod == nil {
		return nil, errors.New(
			"this tool is not of a released version, which the repository could require: " +
				"give the folder of the library with --replace",
		)
	}
	return r, nil
}

// libraryVersion returns the released version that this tool is built from, or "".
func libraryVersion(info *debug.BuildInfo) string {
	if version := info.Main.Version; info.Main.Path == library && strings.HasPrefix(version, "v") &&
		!strings.Contains(version, "+dirty") {
		return version
	}
	return ""
}

// servers are what oapi-codegen generates for each router.
var servers = map[string]string{
	"echov4": "echo-server", "echov5": "echo5-server", "std": "std-http-server",
}

// router returns the router that the folder's code is generated for, or the requested one for new
// code.
func (c *initCommand) router(folder string) (string, error) {
	config, _ := os.ReadFile(filepath.Join(folder, ".oapi-codegen.yaml"))
	has := ""
	for name, server := range servers {
		if bytes.Contains(config, []byte(" "+server+": true")) {
			has = name
		}
	}
	if config != nil && c.Router != "" && c.Router != has {
		return "", fmt.Errorf(
			"--router is %s, but %s generates code for %s",
			c.Router,
			filepath.Join(c.Folder, ".oapi-codegen.yaml"),
			cmp.Or(has, "another router"),
		)
	}
	return cmp.Or(has, c.Router, "echov4"), nil
}

// source returns where to read the document, and the files of it that the folder does not have.
func (c *initCommand) source(r *repository) (name string, copies []initFile, err error) {
	own := filepath.Join(c.Folder, "openapi.yaml")
	_, missing := os.Stat(own)
	switch {
	case c.Document == "" && missing != nil:
		return "", nil, fmt.Errorf("--document is missing, and there is no %s", own)
	case c.Document == "" || missing == nil && sameFile(c.Document, own):
		r.Bundle = len(references(own)) > 1
		return own, nil, nil
	}
	files := references(c.Document)
	r.Bundle = len(files) > 1
	root := filepath.Dir(c.Document)
	for _, file := range files {
		relative, err := filepath.Rel(root, file)
		if err != nil || !filepath.IsLocal(relative) {
			return "", nil, fmt.Errorf(
				"%s refers to %s, which is not below its folder: move it there",
				c.Document,
				file,
			)
		}
		if file == files[0] {
			relative = "openapi.yaml"
		}
		data, err := os.ReadFile(file)
		if err != nil {
			return "", nil, err
		}
		if there, err := os.ReadFile(filepath.Join(c.Folder, relative)); err == nil &&
			!bytes.Equal(there, data) {
			return "", nil, fmt.Errorf(
				"%s differs from %s, and is not overwritten: change it, and leave --document out",
				filepath.Join(c.Folder, relative),
				file,
			)
		} else if err != nil {
			copies = append(copies, initFile{name: filepath.ToSlash(relative), data: data})
		}
	}
	return c.Document, copies, nil
}

// overlay returns the overlay of --overlay, if the folder does not have one yet. An existing
// overlay is used instead, so that generated code and plan agree.
func (c *initCommand) overlay(t *tool, r *repository) ([]initFile, error) {
	config := filepath.Join(r.folder, ".oapi-codegen.yaml")
	text, missing := os.ReadFile(config)
	options, err := readConfig(text)
	if err != nil {
		return nil, err
	}
	r.Overlay = options.OutputOptions.Overlay.Path
	had := filepath.Join(r.folder, filepath.FromSlash(r.Overlay))
	switch given := t.overlays; {
	case len(given) == 0:
		if r.Overlay != "" {
			t.overlays = []string{had}
		}
		return nil, nil
	case len(given) > 1:
		return nil, errors.New("--overlay has several files, and oapi-codegen applies one: " +
			"put their actions into one")
	case r.Bundle:
		return nil, errors.New("--overlay is for a document in one file, and this one is in " +
			"several: combine them with authz bundle")
	case missing == nil && !sameFile(given[0], had):
		return nil, fmt.Errorf("--overlay is %s, but %s does not name it under output-options: "+
			"generated code would be that of another document", given[0], config)
	case missing == nil:
		return nil, nil
	}
	r.Overlay = filepath.Base(t.overlays[0])
	data, err := os.ReadFile(t.overlays[0])
	if err != nil {
		return nil, fmt.Errorf("--overlay: %w", err)
	}
	there, err := os.ReadFile(filepath.Join(r.folder, r.Overlay))
	switch {
	case err != nil:
		return []initFile{{name: r.Overlay, data: data}}, nil
	case !bytes.Equal(there, data):
		return nil, fmt.Errorf("%s differs from %s, and is not overwritten",
			filepath.Join(c.Folder, r.Overlay), t.overlays[0])
	}
	return nil, nil
}

func sameFile(a, b string) bool {
	one, err := os.Stat(a)
	other, otherErr := os.Stat(b)
	return err == nil && otherErr == nil && os.SameFile(one, other)
}

// references returns the files of a document, beginning with the document.
func references(name string) []string {
	files := []string{filepath.Clean(name)}
	loader := openapi3.NewLoader()
	loader.IsExternalRefsAllowed = true
	loader.ReadFromURIFunc = func(_ *openapi3.Loader, location *url.URL) ([]byte, error) {
		if location.Scheme != "" || location.Host != "" {
			return nil, errors.New("not a file")
		}
		file := filepath.Clean(filepath.FromSlash(location.Path))
		if !slices.Contains(files, file) {
			files = append(files, file)
		}
		return os.ReadFile(file)
	}
	_, _ = loader.LoadFromURI(&url.URL{Path: filepath.ToSlash(name)}) // load reports errors
	return files
}

// faults returns why this router cannot serve the document, with lines and what to do.
func (c *initCommand) faults(r *repository) (all []string) {
	name := filepath.Base(cmp.Or(c.Document, "openapi.yaml"))
	add := func(f *authz.Fault) {
		where, at := name, f.At
		if item := r.document.Paths.Value(f.Path); at == nil && item != nil {
			// Overlaid documents have no origins.
			if o := item.GetOperation(f.Method); o != nil && o.Origin != nil {
				at = o.Origin.Key
			}
		}
		if at != nil {
			where = fmt.Sprintf("%s:%d", filepath.Base(cmp.Or(at.File, name)), at.Line)
		}
		all = append(all, where+": "+strings.TrimPrefix(f.Error(), "openapi: "))
	}
	_, err := authz.Compile(r.document)
	for _, f := range faultsOf(err) {
		add(f)
	}
	if all != nil {
		return all
	}
	secrets := authztest.NewSecrets(r.document)
	gate, err := authz.New(authz.Config{
		Document: r.document, Verifier: &token.Verifier{},
		Authenticators: secrets.Authenticators(),
	})
	if err != nil {
		for _, f := range faultsOf(err) {
			add(f)
		}
		if all == nil {
			all = []string{err.Error()}
		}
		return all
	}
	r.Secrets = len(secrets.Authenticators()) > 0
	if r.Router != "std" {
		_, found := echopath.Read(authz.Gates{gate})
		for _, f := range faultsOf(errors.Join(found...)) {
			add(f)
		}
		return all
	}
	mux := gate.Mux()
	for _, o := range gate.Plan().Operations() {
		pattern := regexp.MustCompile(`\{[^}]*\}`).
			ReplaceAllStringFunc(o.Path, func(p string) string {
				return "{" + strings.NewReplacer("-", "_", ".", "_").Replace(p[1:len(p)-1]) + "}"
			})
		mux.HandleFunc(o.Method+" "+pattern, nil)
	}
	for _, f := range faultsOf(mux.CheckRoutes()) {
		add(f)
	}
	return all
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

func (p page) writeInit(report initReport, r *repository) {
	verb := "written"
	if report.DryRun {
		verb = "would be written"
	}
	files := "nothing is missing"
	if n := len(report.Written); n > 0 {
		files = fmt.Sprintf("%s %s: %s", count(n, "file"), verb,
			strings.Join(report.Written, ", "))
	}
	rows := [][]cell{plain(report.Folder, files)}
	if len(report.Handlers) > 0 {
		rows = append(rows, plain("handlers", strings.Join(report.Handlers, ", ")))
	}
	rows = append(rows, plain("generated", fmt.Sprintf("%s, %d of them public; %s",
		count(report.Operations, "operation"), report.Public, count(report.Scopes, "scope"))))
	if !report.DryRun && r.First {
		rows = append(rows, plain("next", "cd "+report.Folder+" && go run . dev"))
	}
	p.table("", p.wrap(rows, 1))
}

// bundleCommand writes a document in several files as one, for tools that read only one.
type bundleCommand struct {
	Document string `arg:"" help:"OpenAPI document, or - for standard input."`
	Output   string `short:"o" help:"File to write. Default: standard output."`
}

func (c *bundleCommand) Run(ctx context.Context, t *tool) error {
	doc, err := t.load(ctx, c.Document, everything, false)
	if err != nil {
		return err
	}
	data, err := bundle(ctx, doc)
	if err != nil {
		return err
	}
	if c.Output == "" {
		_, err = t.out.w.Write(data)
		return err
	}
	return os.WriteFile(c.Output, data, 0o644)
}

// bundle returns a document as one JSON file.
func bundle(ctx context.Context, doc *openapi3.T) ([]byte, error) {
	doc.InternalizeRefs(ctx, nil)
	compact, err := doc.MarshalJSON()
	if err != nil {
		return nil, err
	}
	var b bytes.Buffer
	if err := json.Indent(&b, compact, "", "  "); err != nil {
		return nil, err
	}
	b.WriteByte('\n')
	return b.Bytes(), nil
}
