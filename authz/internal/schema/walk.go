package schema

import "github.com/getkin/kin-openapi/openapi3"

// walk calls visit for every schema and every reference to one in a document, in no particular
// order. It covers what [openapi3.T.WalkSchemas] covers. That one builds the location of each
// schema, which takes ten times as long.
func walk(doc *openapi3.T, visit func(*openapi3.SchemaRef)) {
	w := walker{visit, map[*openapi3.Schema]bool{}, map[*openapi3.Callback]bool{}}
	if c := doc.Components; c != nil {
		w.schemas(c.Schemas)
		for _, ref := range c.Parameters {
			w.parameter(ref)
		}
		w.headers(c.Headers)
		for _, ref := range c.RequestBodies {
			w.body(ref)
		}
		for _, ref := range c.Responses {
			w.response(ref)
		}
		w.callbacks(c.Callbacks)
	}
	w.items(doc.Paths.Map())
	w.items(doc.Webhooks)
}

type walker struct {
	visit        func(*openapi3.SchemaRef)
	seen         map[*openapi3.Schema]bool
	callbackSeen map[*openapi3.Callback]bool
}

func (w *walker) items(items map[string]*openapi3.PathItem) {
	for _, item := range items {
		if item == nil {
			continue
		}
		w.parameters(item.Parameters)
		for _, o := range item.Operations() {
			w.parameters(o.Parameters)
			w.body(o.RequestBody)
			for _, ref := range o.Responses.Map() {
				w.response(ref)
			}
			w.callbacks(o.Callbacks)
		}
	}
}

func (w *walker) callbacks(refs openapi3.Callbacks) {
	for _, ref := range refs {
		// An operation of a callback can refer to the callback.
		if ref != nil && ref.Value != nil && !w.callbackSeen[ref.Value] {
			w.callbackSeen[ref.Value] = true
			w.items(ref.Value.Map())
		}
	}
}

func (w *walker) parameters(refs openapi3.Parameters) {
	for _, ref := range refs {
		w.parameter(ref)
	}
}

func (w *walker) parameter(ref *openapi3.ParameterRef) {
	if ref != nil && ref.Value != nil {
		w.schema(ref.Value.Schema)
		w.content(ref.Value.Content)
	}
}

func (w *walker) headers(refs openapi3.Headers) {
	for _, ref := range refs {
		if ref != nil && ref.Value != nil {
			w.schema(ref.Value.Schema)
			w.content(ref.Value.Content)
		}
	}
}

func (w *walker) body(ref *openapi3.RequestBodyRef) {
	if ref != nil && ref.Value != nil {
		w.content(ref.Value.Content)
	}
}

func (w *walker) response(ref *openapi3.ResponseRef) {
	if ref != nil && ref.Value != nil {
		w.headers(ref.Value.Headers)
		w.content(ref.Value.Content)
	}
}

func (w *walker) content(content openapi3.Content) {
	for _, media := range content {
		if media != nil {
			w.schema(media.Schema)
			w.schema(media.ItemSchema)
		}
	}
}

func (w *walker) schemas(refs openapi3.Schemas) {
	for _, ref := range refs {
		w.schema(ref)
	}
}

func (w *walker) schema(ref *openapi3.SchemaRef) {
	if ref == nil || ref.Value == nil {
		return
	}
	w.visit(ref)
	s := ref.Value
	if w.seen[s] {
		return
	}
	w.seen[s] = true
	for _, schemas := range []openapi3.Schemas{
		s.Properties, s.PatternProperties, s.DependentSchemas, s.Defs,
	} {
		w.schemas(schemas)
	}
	for _, refs := range []openapi3.SchemaRefs{s.AllOf, s.AnyOf, s.OneOf, s.PrefixItems} {
		for _, ref := range refs {
			w.schema(ref)
		}
	}
	for _, ref := range []*openapi3.SchemaRef{
		s.Items, s.AdditionalProperties.Schema, s.Not, s.Contains, s.PropertyNames,
		s.If, s.Then, s.Else, s.UnevaluatedItems.Schema, s.UnevaluatedProperties.Schema,
		s.ContentSchema,
	} {
		w.schema(ref)
	}
}
