// Package overlay applies OpenAPI Overlays (version 1.0 or 1.1) to a document. With an overlay, a
// document that others maintain need not be edited: it can add security and scopes, or remove
// operations.
//
// The implementation is the one that oapi-codegen uses, so generated code and the gate agree.
package overlay

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/speakeasy-api/openapi/overlay"
	"gopkg.in/yaml.v3"
)

// Apply returns the document with the overlays applied in order. Documents and overlays are YAML or
// JSON; the result is YAML. Load it with the path of the document, so that its relative references
// resolve:
//
//	doc, err := openapi3.NewLoader().LoadFromDataWithPath(text, &url.URL{Path: "openapi.yaml"})
//
// A target that selects nothing is an error, so that a restriction is not lost if a path is
// renamed. Targets match this document only, not the files that it refers to.
//
// An update adds to a list and does not replace it (Overlay 1.0 §4.4.3). To replace the security of
// an operation, remove it in one action and set it in the next.
func Apply(document []byte, overlays ...[]byte) ([]byte, error) {
	if len(overlays) == 0 {
		return document, nil
	}
	var root yaml.Node
	if err := yaml.Unmarshal(document, &root); err != nil {
		return nil, fmt.Errorf("overlay: the document is not YAML: %w", err)
	}
	if root.Kind == 0 {
		return nil, errors.New("overlay: the document is empty")
	}
	for i, text := range overlays {
		if err := apply(&root, text); err != nil {
			return nil, fmt.Errorf("overlay %d of %d: %w", i+1, len(overlays), err)
		}
	}
	return yaml.Marshal(&root)
}

// ApplyTo is [Apply] for a loaded document, such as the one in generated code. It internalizes
// references to other files, in doc as well, and changes nothing else in doc.
func ApplyTo(doc *openapi3.T, overlays ...[]byte) (*openapi3.T, error) {
	if len(overlays) == 0 {
		return doc, nil
	}
	doc.InternalizeRefs(context.Background(), nil)
	text, err := doc.MarshalJSON()
	if err != nil {
		return nil, fmt.Errorf("overlay: the document cannot be written: %w", err)
	}
	if text, err = Apply(text, overlays...); err != nil {
		return nil, err
	}
	return openapi3.NewLoader().LoadFromData(text)
}

func apply(root *yaml.Node, text []byte) error {
	var o overlay.Overlay
	decoder := yaml.NewDecoder(bytes.NewReader(text))
	if err := decoder.Decode(&o); errors.Is(err, io.EOF) {
		return errors.New("it is empty")
	} else if err != nil {
		return err
	}
	if err := decoder.Decode(new(yaml.Node)); !errors.Is(err, io.EOF) {
		return errors.New("it is followed by another document: put each overlay into a file of " +
			"its own")
	}
	if err := o.Validate(); err != nil {
		return err
	}
	for i, action := range o.Actions {
		for name := range action.Extensions {
			if !strings.HasPrefix(name, "x-") {
				return fmt.Errorf("action %d has an unknown field %s", i+1, name)
			}
		}
	}
	_, err := o.ApplyToStrict(root)
	return err
}
