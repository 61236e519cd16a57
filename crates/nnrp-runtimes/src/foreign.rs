//! C libraries that are opened at run time: their functions, and what they make.
use std::ptr::NonNull;

/// Objects of which only the library knows what they are.
macro_rules! opaque {
    ($($(#[$about:meta])* $name:ident;)*) => {
        $($(#[$about])*
        #[repr(C)]
        pub(super) struct $name([u8; 0]);)*
    };
}

/// A library's functions as its header declares them; only those that are called.
macro_rules! functions {
    ($($name:ident($($argument:ty),* $(; $dots:tt)?) $(-> $result:ty)?;)*) => {
        /// Pointers into the library, valid as long as it is open.
        #[allow(non_snake_case, reason = "the library's own names")]
        pub(super) struct Functions { $(pub(super) $name: unsafe extern "C" fn($($argument),* $(, $dots)?) $(-> $result)?,)* }

        impl Functions {
            /// `None` when one is missing: another library, or a version that is too old.
            ///
            /// # Safety
            /// The library is the one whose header declares them so, and stays open as long as the functions are called.
            pub(super) unsafe fn of(library: &libloading::Library) -> Option<Functions> {
                // SAFETY: the types are those of the C header, of the versions that the caller takes.
                unsafe { Some(Functions { $($name: *library.get(concat!(stringify!($name), "\0").as_bytes()).ok()?,)* }) }
            }
        }
    };
}

pub(crate) use {functions, opaque};

/// Something that a library made; freed at the end.
pub(crate) struct Owned<T> {
    ptr: NonNull<T>,
    free: unsafe extern "C" fn(*mut T),
}

// SAFETY: what is held so may be used and freed on any thread; who uses one on several at once is said where it is done.
unsafe impl<T> Send for Owned<T> {}
// SAFETY: as above: through a shared reference only the pointer can be had.
unsafe impl<T> Sync for Owned<T> {}

impl<T> Owned<T> {
    /// What `free` ends, once.
    pub(crate) fn of(ptr: NonNull<T>, free: unsafe extern "C" fn(*mut T)) -> Self {
        Owned { ptr, free }
    }

    #[inline]
    pub(crate) fn ptr(&self) -> *mut T {
        self.ptr.as_ptr()
    }
}

impl<T> Drop for Owned<T> {
    #[inline]
    fn drop(&mut self) {
        // SAFETY: made by the library, freed once.
        unsafe { (self.free)(self.ptr.as_ptr()) }
    }
}
