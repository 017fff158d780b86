// Command webhook is an admission webhook for tests: it refuses objects named
// "forbidden". Its certificate and key are its two arguments.
package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"time"
)

// review is the part of admission.k8s.io/v1 AdmissionReview that is needed.
type review struct {
	APIVersion string    `json:"apiVersion"`
	Kind       string    `json:"kind"`
	Request    *request  `json:"request,omitempty"`
	Response   *response `json:"response,omitempty"`
}

type request struct {
	UID  string `json:"uid"`
	Name string `json:"name"`
}

type response struct {
	UID     string            `json:"uid"`
	Allowed bool              `json:"allowed"`
	Status  map[string]string `json:"status,omitempty"`
}

func answer(w http.ResponseWriter, r *http.Request) {
	var in review
	if err := json.NewDecoder(r.Body).Decode(&in); err != nil || in.Request == nil {
		http.Error(w, "no AdmissionReview", http.StatusBadRequest)
		return
	}
	out := response{UID: in.Request.UID, Allowed: in.Request.Name != "forbidden"}
	if !out.Allowed {
		out.Status = map[string]string{"message": "the webhook says no"}
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(review{APIVersion: in.APIVersion, Kind: in.Kind, Response: &out}) // who does not read asks again
}

func main() {
	http.HandleFunc("POST /", answer)
	http.HandleFunc("GET /ready", func(http.ResponseWriter, *http.Request) {})
	server := http.Server{Addr: ":8443", ReadHeaderTimeout: 10 * time.Second}
	if len(os.Args) != 3 {
		fmt.Fprintln(os.Stderr, "usage: webhook CERTIFICATE KEY")
		os.Exit(2)
	}
	fmt.Fprintln(os.Stderr, server.ListenAndServeTLS(os.Args[1], os.Args[2]))
	os.Exit(1)
}
