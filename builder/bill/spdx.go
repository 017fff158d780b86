package bill

import (
	"bytes"
	"crypto/sha1" // #nosec G505 -- SPDX 2.3 asks for it, beside SHA-256
	"crypto/sha256"
	"encoding/hex"
	"regexp"
	"slices"
	"strings"

	"github.com/spdx/tools-golang/json"
	"github.com/spdx/tools-golang/spdx"
	"github.com/spdx/tools-golang/spdx/v2/common"

	"github.com/imgbuild/imgbuild/internal/repro"
)

// SPDX is the bill as an SPDX 2.3 document in JSON.
func (b *Bill) SPDX() ([]byte, error) {
	image := spdxID("Image", b.Name)
	doc := &spdx.Document{
		SPDXVersion: spdx.Version, DataLicense: spdx.DataLicense, SPDXIdentifier: "DOCUMENT",
		DocumentName: b.Name + "-" + b.Version, DocumentNamespace: "urn:uuid:" + repro.UUID("spdx", b.ID).String(),
		CreationInfo: &spdx.CreationInfo{Created: repro.Epoch().Format("2006-01-02T15:04:05Z"), Creators: []spdx.Creator{{CreatorType: "Tool", Creator: "imgbuild"}}},
		Packages: []*spdx.Package{{PackageName: b.Name, PackageVersion: b.Version, PackageSPDXIdentifier: image, PackageDownloadLocation: none,
			PackageLicenseConcluded: none, PackageLicenseDeclared: none, PackageCopyrightText: none, PrimaryPackagePurpose: "OPERATING-SYSTEM"}},
		Relationships: []*spdx.Relationship{relate("DOCUMENT", "DESCRIBES", image)},
	}
	for _, c := range b.Components {
		id := spdxID(string(c.Kind), c.Reference())
		doc.Packages = append(doc.Packages, b.spdxPackage(c, id))
		doc.Relationships = append(doc.Relationships, relate(image, "CONTAINS", id))
		for _, need := range c.Needs {
			kind, _, _ := strings.Cut(need, "/")
			doc.Relationships = append(doc.Relationships, relate(id, "CONTAINS", spdxID(kind, need)))
		}
		for _, p := range c.Files {
			doc.Relationships = append(doc.Relationships, relate(id, "CONTAINS", spdxID("File", p)))
		}
	}
	for _, p := range b.sortedFiles() {
		f := b.Files[p]
		doc.Files = append(doc.Files, &spdx.File{FileName: "./" + p, FileSPDXIdentifier: spdxID("File", p), LicenseConcluded: none, FileCopyrightText: none,
			Checksums: []spdx.Checksum{{Algorithm: spdx.SHA1, Value: f.SHA1}, {Algorithm: spdx.SHA256, Value: f.SHA256}}})
	}
	var out bytes.Buffer
	err := json.Write(doc, &out, json.Indent(" "))
	return out.Bytes(), err
}

// none is SPDX's word for "we do not say".
const none = "NOASSERTION"

func (b *Bill) spdxPackage(c *Component, id spdx.ElementID) *spdx.Package {
	p := &spdx.Package{PackageName: c.Name, PackageVersion: c.Version, PackageSPDXIdentifier: id, PackageDownloadLocation: none,
		PackageLicenseConcluded: none, PackageLicenseDeclared: none, PackageCopyrightText: none, IsFilesAnalyzedTagPresent: true, FilesAnalyzed: len(c.Files) > 0,
		PackageExternalReferences: []*spdx.PackageExternalReference{{Category: "PACKAGE-MANAGER", RefType: "purl", Locator: c.PURL}}}
	if c.Supplier != "" {
		p.PackageSupplier = &spdx.Supplier{SupplierType: "Organization", Supplier: c.Supplier}
	}
	if digest, ok := strings.CutPrefix(c.Digest, "sha256:"); ok {
		p.PackageChecksums = []spdx.Checksum{{Algorithm: spdx.SHA256, Value: digest}}
	}
	if p.FilesAnalyzed {
		p.PackageVerificationCode = &spdx.PackageVerificationCode{Value: b.verificationCode(c.Files)}
	}
	return p
}

// verificationCode is the one of section 7.9 of the SPDX specification.
func (b *Bill) verificationCode(files []string) string {
	var sums []string
	for _, p := range files {
		sums = append(sums, b.Files[p].SHA1)
	}
	slices.Sort(sums)
	sum := sha1.Sum([]byte(strings.Join(sums, ""))) // #nosec G401 -- as above
	return hex.EncodeToString(sum[:])
}

var notID = regexp.MustCompile(`[^a-zA-Z0-9.-]+`)

// spdxID makes an identifier that is unique for the name and can be read.
func spdxID(kind, name string) spdx.ElementID {
	sum := sha256.Sum256([]byte(kind + " " + name))
	return spdx.ElementID(strings.Trim(notID.ReplaceAllString(kind, "-"), "-") + "-" + hex.EncodeToString(sum[:8]))
}

func relate(a spdx.ElementID, how string, b spdx.ElementID) *spdx.Relationship {
	return &spdx.Relationship{RefA: common.MakeDocElementID("", string(a)), Relationship: how, RefB: common.MakeDocElementID("", string(b))}
}
