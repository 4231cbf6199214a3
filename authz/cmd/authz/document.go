package main

import (
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"path/filepath"
	"strings"

	"github.com/getkin/kin-openapi/openapi3"

	"github.com/oasgate/oasgate/authz"
)

// load reads a document with everything that it refers to; with places, also where each part of it stands. It may refer
// to other files but not to the network: what a document says must not depend on who answers.
func (t *tool) load(name string, places bool) (*openapi3.T, error) {
	loader := openapi3.NewLoader()
	loader.IncludeOrigin = places
	loader.IsExternalRefsAllowed = true
	loader.ReadFromURIFunc = func(_ *openapi3.Loader, location *url.URL) ([]byte, error) {
		switch {
		case location.Scheme != "" || location.Host != "":
			return nil, fmt.Errorf("it refers to %s: only files of this machine are read; keep a copy beside the document", location.Redacted())
		case location.Path == "-":
			return io.ReadAll(t.stdin)
		}
		return os.ReadFile(filepath.FromSlash(location.Path))
	}
	doc, err := loader.LoadFromURI(&url.URL{Path: filepath.ToSlash(name)})
	if name == "-" {
		name = "standard input"
	}
	if err != nil {
		return nil, fmt.Errorf("%s could not be read: %w", name, err)
	}
	// Anything that is YAML loads. An empty one, such as of a command that failed ahead of the pipe, would pass for
	// an API without operations.
	if !strings.HasPrefix(doc.OpenAPI, "3.") {
		return nil, fmt.Errorf("%s could not be read: openapi is %q, expected an OpenAPI document of version 3", name, doc.OpenAPI)
	}
	return doc, nil
}

// operation is an operation of a document and what its security means.
type operation struct {
	authz.Operation
	access access
}

func (o operation) String() string { return o.Method + " " + o.Path }

// describe returns every operation of a document.
func describe(doc *openapi3.T) []operation {
	var all []operation
	for _, o := range authz.Describe(doc) {
		all = append(all, operation{o, accessOf(o, func(scheme string) string { return credential(doc, scheme) })})
	}
	return all
}

// faults returns everything that would keep a document from being served.
func faults(doc *openapi3.T) []*authz.Fault {
	_, err := authz.Compile(doc)
	return faultsOf(err)
}

func faultsOf(err error) (all []*authz.Fault) {
	var fault *authz.Fault
	if several, ok := err.(interface{ Unwrap() []error }); ok {
		for _, err := range several.Unwrap() {
			all = append(all, faultsOf(err)...)
		}
	} else if errors.As(err, &fault) {
		all = append(all, fault)
	}
	return all
}
