package main

import (
	"net/http/httptest"
	"strings"
	"testing"
)

func TestAnswer(t *testing.T) {
	for body, want := range map[string]string{
		`{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview","request":{"uid":"u1","name":"with"}}`:      `{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview","response":{"uid":"u1","allowed":true}}`,
		`{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview","request":{"uid":"u2","name":"forbidden"}}`: `{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview","response":{"uid":"u2","allowed":false,"status":{"message":"the webhook says no"}}}`,
		`hello`: "no AdmissionReview",
	} {
		w := httptest.NewRecorder()
		answer(w, httptest.NewRequest("POST", "/", strings.NewReader(body)))
		if got := strings.TrimSpace(w.Body.String()); got != want {
			t.Errorf("%s:\ngot  %s\nwant %s", body, got, want)
		}
	}
}
