package main

import (
	"reflect"

	"github.com/getkin/kin-openapi/openapi3"
)

// sameness caches which pairs of schemas are the same. A pair that is being compared is assumed to
// be the same.
type sameness struct {
	known map[[2]*openapi3.Schema]bool
	// assumed are the pairs that the current comparison assumes to be the same. One difference
	// refutes them all, because schemas can contain each other.
	assumed [][2]*openapi3.Schema
}

// same reports whether two parts of documents mean the same for a request, wherever they are and
// however they are referenced.
func (s *sameness) same(a, b any) bool {
	s.assumed = nil
	equal := s.equal(reflect.ValueOf(a), reflect.ValueOf(b))
	if !equal {
		for _, pair := range s.assumed {
			delete(s.known, pair)
		}
	}
	return equal
}

func (s *sameness) equal(a, b reflect.Value) bool {
	if a.Kind() == reflect.Pointer && !a.IsNil() && !b.IsNil() {
		if x, ok := a.Interface().(*openapi3.Schema); ok {
			pair := [2]*openapi3.Schema{x, b.Interface().(*openapi3.Schema)}
			if known, ok := s.known[pair]; ok {
				return known
			}
			s.known[pair] = true
			s.assumed = append(s.assumed, pair)
			return s.equal(a.Elem(), b.Elem())
		}
	}
	switch a.Kind() {
	case reflect.Pointer:
		if a.IsNil() || b.IsNil() {
			return a.IsNil() == b.IsNil()
		}
		return s.equal(a.Elem(), b.Elem())
	case reflect.Struct:
		for i := range a.NumField() {
			field := a.Type().Field(i)
			if field.IsExported() && !irrelevant[field.Name] && !s.equal(a.Field(i), b.Field(i)) {
				return false
			}
		}
		return true
	case reflect.Slice:
		if a.Len() != b.Len() {
			return false
		}
		for i := range a.Len() {
			if !s.equal(a.Index(i), b.Index(i)) {
				return false
			}
		}
		return true
	case reflect.Map:
		if a.Len() != b.Len() {
			return false
		}
		for _, key := range a.MapKeys() {
			other := b.MapIndex(key)
			if !other.IsValid() || !s.equal(a.MapIndex(key), other) {
				return false
			}
		}
		return true
	case reflect.Interface:
		if a.IsNil() || b.IsNil() {
			return a.IsNil() == b.IsNil()
		}
		return compact(a.Interface()) == compact(b.Interface()) // numbers differ by parser
	}
	return a.Equal(b)
}

// irrelevant are the fields of a document that do not affect what a request may contain.
var irrelevant = map[string]bool{
	"Origin": true, "Ref": true, "RefPath": true, "Extensions": true, "Title": true,
	"Description": true,
	"Default":     true, "Example": true, "Examples": true, "ExternalDocs": true, "XML": true,
	"Deprecated": true,
	"Comment":    true, "Defs": true,
}
