package main

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"runtime/debug"
	"slices"
	"strings"

	"github.com/getkin/kin-openapi/openapi3"

	"github.com/oasgate/oasgate/authz"
	"github.com/oasgate/oasgate/authz/authztest"
	"github.com/oasgate/oasgate/authz/internal/echopath"
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
	r.files = append(copies, laid...)
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
	if err := r.compose(ctx, t, source); err != nil {
		return err
	}
	report, err := c.report(r)
	if err != nil {
		return err
	}
	if !c.DryRun {
		if err := r.write(ctx); err != nil {
			return err
		}
	}
	return t.writeResult(report, func(p page) { p.writeInit(report, r) })
}

func (c *initCommand) report(r *repository) (initReport, error) {
	plan, err := authz.Compile(r.document)
	if err != nil {
		return initReport{}, err
	}
	report := initReport{
		Folder:     c.Folder,
		Written:    []string{},
		Handlers:   []string{},
		Operations: len(plan.Operations()),
		Scopes:     len(plan.Scopes()),
		DryRun:     c.DryRun,
	}
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
	}
	return report, nil
}

// repository reads what the folder already has.
func (c *initCommand) repository() (*repository, error) {
	folder, err := filepath.Abs(c.Folder)
	if err != nil {
		return nil, err
	}
	r := &repository{Library: library, Examples: c.Examples, Go: "1.26.0", folder: folder}
	gomod, _ := os.ReadFile(filepath.Join(folder, "go.mod"))
	if r.Module, err = c.module(gomod); err != nil {
		return nil, err
	}
	if r.Name, err = c.program(r.Module); err != nil {
		return nil, err
	}
	r.Prefix = strings.ToUpper(strings.ReplaceAll(r.Name, "-", "_")) + "_"
	if r.Router, err = c.router(folder); err != nil {
		return nil, err
	}
	r.Server = servers[r.Router]
	r.EchoVersion = strings.TrimPrefix(r.Router, "echo")
	r.Version = "v0.0.0"
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

// module returns the module path of the folder's go.mod, or that of --module.
func (c *initCommand) module(gomod []byte) (string, error) {
	module := c.Module
	if m := regexp.MustCompile(`(?m)^module\s+"?([^\s"]+)`).FindSubmatch(gomod); m != nil {
		if c.Module != "" && c.Module != string(m[1]) {
			return "", fmt.Errorf(
				"--module is %s, but %s is the module of %s",
				c.Module,
				filepath.Join(c.Folder, "go.mod"),
				m[1],
			)
		}
		module = string(m[1])
	}
	if !regexp.MustCompile(`^[A-Za-z0-9._~/-]+$`).MatchString(module) ||
		strings.Trim(module, "/") != module {
		return "", fmt.Errorf(
			"--module is %q: expected a module path such as example.com/acme/orders",
			module,
		)
	}
	return module, nil
}

// program returns the name of the program: that of --name, or one made of the module's last word
// that is not a version.
func (c *initCommand) program(module string) (string, error) {
	base := path.Base(module)
	if regexp.MustCompile(`^v[0-9]+$`).MatchString(base) {
		base = path.Base(path.Dir(module))
	}
	name := cmp.Or(
		c.Name,
		strings.Trim(
			regexp.MustCompile(`[^a-z0-9]+`).ReplaceAllString(strings.ToLower(base), "-"),
			"-0123456789",
		),
		"api",
	)
	if !regexp.MustCompile(`^[a-z][a-z0-9-]*$`).MatchString(name) {
		return "", fmt.Errorf(
			"--name is %q: expected a word such as orders: lower case letters, digits, hyphens",
			name,
		)
	}
	return name, nil
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
