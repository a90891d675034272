//! Kernels: name, parameters and what a launch must know; the body is read in `body`.

use super::parse::Reader;
use super::{Kernel, SyntaxError};

impl Reader<'_> {
    /// `.entry name ( … ) … { … }`
    pub(super) fn kernel(&mut self) -> Result<Kernel, SyntaxError> {
        self.cursor.expect(".entry")?;
        let mut kernel = Kernel {
            name: self.cursor.name("the name of a kernel")?.to_owned(),
            params: Vec::new(),
            threads: None,
            cluster: None,
            registers: Vec::new(),
            variables: Vec::new(),
            instructions: Vec::new(),
        };
        self.scopes.open(self.cursor.line())?;
        if self.cursor.eat("(") && !self.cursor.eat(")") {
            loop {
                kernel.params.push(self.param()?);
                if !self.cursor.eat(",") {
                    self.cursor.expect(")")?;
                    break;
                }
            }
        }
        while self.cursor.text_at(0) != "{" {
            self.launch_fact(&mut kernel)?;
        }
        self.body(&mut kernel)?;
        Ok(kernel)
    }

    /// One of the directives between parameters and body. Those that only advise the assembler are read over.
    fn launch_fact(&mut self, kernel: &mut Kernel) -> Result<(), SyntaxError> {
        let wanted =
            self.cursor.wanted("a fact about the kernel such as `.reqntid 128`, or its body in braces,");
        match self.cursor.text_at(0) {
            ".pragma" => return self.pragma(),
            ".reqntid" => kernel.threads = Some(self.extents()?),
            ".reqnctapercluster" => kernel.cluster = Some(self.extents()?),
            ".maxntid" => {
                self.extents()?;
            }
            ".minnctapersm" | ".maxnctapersm" | ".maxnreg" | ".maxclusterrank" => {
                self.cursor.next();
                self.cursor.count32("a count")?;
            }
            ".explicitcluster" | ".blocksareclusters" | ".noreturn" => {
                self.cursor.next();
            }
            _ => return Err(wanted),
        }
        Ok(())
    }

    /// A directive and one to three extents; those left out are 1.
    fn extents(&mut self) -> Result<[u32; 3], SyntaxError> {
        self.cursor.next();
        let mut extents = [1; 3];
        for (idx, extent) in extents.iter_mut().enumerate() {
            if idx > 0 && !self.cursor.eat(",") {
                break;
            }
            *extent = self.cursor.count32("a positive extent")?;
            if *extent == 0 {
                return Err(self.cursor.error("an extent of 0 leaves nothing to run; write a positive one"));
            }
        }
        Ok(extents)
    }
}
