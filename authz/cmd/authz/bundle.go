package main

import (
	"bytes"
	"context"
	"encoding/json"
	"os"

	"github.com/getkin/kin-openapi/openapi3"
)

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
