// Package report carries progress from the stages that do the work to the top
// floor that talks. Stages never print: they call the Reporter they were given.
package report

// Reporter hears what a stage is doing. Implementations must be safe for
// concurrent use.
type Reporter interface {
	// Stage says that a named step begins; the returned function ends it.
	Stage(name string) (done func())
	// Note says one line that a person should see, such as which source was taken and why.
	Note(format string, args ...any)
	// Progress says how far the current step is; total is 0 where it is not known. Unit is "B" for bytes.
	Progress(step string, done, total int64, unit string)
}

// Discard hears nothing.
type Discard struct{}

var _ Reporter = Discard{}

// Stage implements Reporter.
func (Discard) Stage(string) func() { return func() {} }

// Note implements Reporter.
func (Discard) Note(string, ...any) {}

// Progress implements Reporter.
func (Discard) Progress(string, int64, int64, string) {}
